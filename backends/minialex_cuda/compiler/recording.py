"""Operations as they are written down for a compiled step: what is asked of the runtime, and which arrays it needs.

A recorded array is an object without memory. A compiled step gives it its memory later, and other memory when its
workspace moves; the work, which knows the object, follows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minialex.philox import Stream
from minialex.program import Call, Program, Symbol, Value, flatten
from minialex_cuda.compiler import fused
from minialex_cuda.compiler.updates import Tables, sgd_updates
from minialex_cuda.ops import channels, elementwise
from minialex_cuda.ops.augment import augment
from minialex_cuda.ops.conv2d import conv2d, conv2d_backward
from minialex_cuda.ops.dropout import dropout_at, dropout_backward
from minialex_cuda.ops.linear import linear, linear_backward
from minialex_cuda.ops.max_pool2d import max_pool2d, max_pool2d_backward
from minialex_cuda.ops.response_norm import (
    local_response_norm,
    local_response_norm_backward,
    spatial_response_norm,
    spatial_response_norm_backward,
)
from minialex_cuda.ops.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_backward
from minialex_cuda.runtime.array import CudaArray, without_memory
from minialex_cuda.runtime.place import Place, Work
from minialex_cuda.runtime.protocol import Convolution


@dataclass(frozen=True)
class Recorded:
    """A call, written down.

    Attributes:
        works: what is to be done, in order
        results: the arrays that come out, in the order of the call's results
        scratched: arrays that are not needed beyond the work
        views: arrays that are the bits of others, with those
    """

    works: list[Work]
    results: list[CudaArray | None]
    scratched: list[CudaArray]
    views: list[tuple[CudaArray, CudaArray]]


class RecordingPlace(Place):
    """Nothing is done here; what is asked for is written down, and `take` gives it."""

    def __init__(self, like: Place, stream: Any) -> None:
        super().__init__(like.runtime, like.device, stream, like.precision)
        self._works: list[Work] = []
        self._scratched: list[CudaArray] = []
        self._views: list[tuple[CudaArray, CudaArray]] = []

    def take(self, results: list[CudaArray | None]) -> Recorded:
        """What was written down since the last time, and what came of it."""
        taken = Recorded(self._works, results, self._scratched, self._views)
        self._works, self._scratched, self._views = [], [], []
        return taken

    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An array for a result."""
        return without_memory(shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        """An array that is not needed beyond the operation."""
        self._scratched.append(without_memory(shape, dtype))
        return self._scratched[-1]

    def view(self, x: CudaArray, dtype: Any) -> CudaArray:
        """The bits of an array as numbers of another dtype of that size."""
        self._views.append((without_memory(x.shape, dtype), x))
        return self._views[-1][0]

    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        """Scratch memory for a convolution of float32 arrays, if the runtime's library can do it."""
        if x.dtype != np.float32 or not x.size:
            return None
        nbytes = self.runtime.convolution_bytes(self.device, convolution)
        return None if nbytes is None else self.scratch((nbytes,), np.uint8)

    def do(self, work: Work, *arguments: Any) -> None:
        """Write some work down."""
        self._works.append(work)


def copy_to(on: Place, x: CudaArray, device: str) -> CudaArray:
    """`x` on another device."""
    copy = on.empty(x.shape, x.dtype)
    on.copy(x, copy)
    return copy


def zeros(on: Place, shape: tuple[int, ...], dtype: str, device: str) -> CudaArray:
    """Zeros."""
    made = on.empty(shape, dtype)
    on.clear(made)
    return made


_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    copy_to, zeros, channels.concat, channels.split, elementwise.add, elementwise.scale, conv2d, conv2d_backward,
    linear, linear_backward, elementwise.relu, elementwise.relu_backward, elementwise.tanh,
    elementwise.tanh_backward, max_pool2d, max_pool2d_backward, local_response_norm, local_response_norm_backward,
    spatial_response_norm, spatial_response_norm_backward, dropout_backward, softmax_cross_entropy,
    softmax_cross_entropy_backward, augment, *fused.OPERATIONS,
)  # fmt: skip

OPERATIONS = {function.__name__: function for function in _FUNCTIONS}
"""What `record` takes as it is. `dropout` and updates read what changes from the device, and are not among them."""


def record(
    on: RecordingPlace, call: Call, find: Callable[[Value], CudaArray], step: CudaArray, tables: Tables | None
) -> Recorded:
    """Write a call down.

    Args:
        on: where it is done
        call: what is to be done
        find: gives the array of a value that the call reads
        step: the number of the step, on the device, which dropout reads
        tables: what the updates of a column read
    """

    def resolve(argument: Any) -> Any:
        if isinstance(argument, Value):
            return find(argument)
        if isinstance(argument, list | tuple) and not isinstance(argument, Stream):
            return type(argument)(resolve(item) for item in argument)
        return argument

    args = [resolve(argument) for argument in call.args]
    kwargs = {name: resolve(value) for name, value in call.kwargs.items()}
    made: Any
    if call.operation == "dropout":
        stream = replace(kwargs.pop("stream"), step=0)
        made = dropout_at(on, args[0], step, stream=stream, **kwargs)
    elif call.operation == "sgd_updates":
        assert tables is not None
        ws, vs, dws = args
        made = sgd_updates(on, ws, vs, dws, tables, momentum=kwargs["momentum"])
    else:
        made = OPERATIONS[call.operation](on, *args, **kwargs)
    return on.take(flatten(made))


def can_compile(program: Program) -> bool:
    """Whether all of a program's operations are known here."""
    known = {*OPERATIONS, "dropout", "sgd_update", "reshape"}
    return all(call.operation in known and _symbols_are_expected(call) for call in program.calls)


def _symbols_are_expected(call: Call) -> bool:
    """Only the step of dropout and the rates of updates may be symbols."""
    given = [name for name, value in call.kwargs.items() if isinstance(value, Symbol)]
    if any(isinstance(value, Symbol) for value in call.args):
        return False
    if call.operation == "sgd_update":
        return given == ["learning_rate"]
    if call.operation == "dropout":
        return not given and isinstance(call.kwargs["stream"].step, Symbol)
    return not given
