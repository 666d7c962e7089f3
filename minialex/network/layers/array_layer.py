"""A layer with its own arithmetic: two methods on plain arrays, which become an operation of every backend."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar

from minialex.backend.arrays import Array
from minialex.backend.operations import OPERATIONS, Operation, register
from minialex.backend.program import flatten
from minialex.backend.protocol import Backend
from minialex.backend.rules import Spec
from minialex.network.layers.layer import Context, Layer, Parameters, Shape


@dataclass(frozen=True)
class ArrayLayer(Layer):
    """The base class of layers that compute with an array namespace `xp` (`numpy`; `cupy` on a GPU).

    A class that derives from it is a frozen dataclass and writes two methods::

        def compute(self, xp, x, weight, …): -> y, or (y, saved, …)
        def gradient(self, xp, dy, x, weight, …, saved, …): -> dx, or (dx, dweight, …)

    with its `parameters` in their order after x. `compute` may ask for the keyword ``training``. Neither may write its
    arguments. For an array that is not learned (``Parameter(…, learned=False)``) `gradient` returns what to subtract
    from it. Such a layer's arithmetic runs in NumPy, on one core, whatever the backend's own speed.
    """

    operation: ClassVar[Operation]

    def compute(self, xp: Any, x: Any, *parameters: Any) -> Any:
        """The output y [N,…] of x [N,…], alone or with arrays to pass to `gradient`."""
        raise NotImplementedError

    def gradient(self, xp: Any, dy: Any, x: Any, *parameters_and_saved: Any) -> Any:
        """Gradient of x, alone or followed by that of each parameter."""
        raise NotImplementedError

    def saved(self, x: Shape, *parameters: Shape) -> Sequence[Shape | Spec]:
        """Shapes of what `compute` returns besides y (of another dtype: a `Spec`), from those of its arrays."""
        return ()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "compute" not in vars(cls):
            return  # computes like its base class
        parameters = list(inspect.signature(cls.compute).parameters.values())[2:]
        arrays = [parameter.name for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        asks = any(parameter.name == "training" for parameter in parameters)

        def forward(xp: Any, *given: Any, layer: ArrayLayer, columns: int, training: bool) -> Any:
            return layer.compute(xp, *given, **({"training": training} if asks else {}))

        def backward(xp: Any, dy: Any, *given: Any, layer: ArrayLayer, columns: int, training: bool) -> Any:
            return layer.gradient(xp, dy, *given)

        def shape(*given: Any, layer: ArrayLayer, columns: int, training: bool) -> Any:
            N, *seen = given[0].shape
            y = (N, *layer.output_shape(tuple(seen), columns))
            saved = layer.saved(*(tuple(array.shape) for array in given))
            return [y, *saved] if saved else y

        for function in (forward, backward):
            function.__module__ = cls.__module__
        title = f"{cls.__module__}.{cls.__qualname__}"
        # a class defined again, as in a notebook's cell, may take other arrays than existing layers
        name = next(name for n in count(1) if (name := title if n == 1 else f"{title}-{n}") not in OPERATIONS)
        cls.operation = register(name, forward, backward, shape=shape, arrays=arrays)

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        numbers = {"layer": self, "columns": context.columns, "training": context.training}
        arrays = (x, *parameters.values())
        y, *saved = flatten(self.operation(backend, *arrays, **numbers))
        return y, ((*arrays, *saved), numbers)

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        arrays, numbers = saved
        dx, *gradients = flatten(self.operation.gradient(backend, dy, *arrays, **numbers))
        return dx, dict(zip(parameters, gradients, strict=True))
