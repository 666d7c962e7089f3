"""Runs a single operation, as the protocol calls it: its node with buffers made for that call."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.program import ArrayName, Value, flatten
from minialex_numba.runtime.buffers import Bind, Buffers, Slices, Whole, row_width
from minialex_numba.runtime.layout import Rows, channels_first, channels_last, empty
from minialex_numba.runtime.threads import Threads


@dataclass(eq=False)
class Alone(Buffers):
    """Buffers of one operation; what it reads as rows is converted to that layout on request.

    Attributes:
        arrays: the arguments, and the results that are not images, in the protocol's layout
    """

    arrays: dict[Value, NDArray[Any]] = field(default_factory=dict)

    def argument(self, array: Any) -> Any:
        """A value that stands for an array; numbers stay as they are."""
        if not isinstance(array, np.ndarray):
            return array
        value = Value(0, array.shape, array.dtype, "")
        self.arrays[value], self.slices.names[value] = array, ArrayName(column=len(self.arrays))
        return value

    def scratch(self, numbers: int) -> Whole:
        value = Value(0, (numbers,), self.dtype, "")
        self.arrays[value] = empty(numbers, self.dtype)
        return Whole(value)

    def array(self, value: Value) -> Any:
        return SimpleNamespace(data=self.arrays[value], version=0)

    def rows(self, value: Value) -> Rows:
        if value not in self.memory:
            array = self.arrays.get(value)
            if array is None:
                self.memory[value] = empty(math.prod(value.shape), value.dtype)
            else:
                is_images = array.ndim == 4
                self.memory[value] = channels_last(self.threads, array)[0] if is_images else array.reshape(-1)
        return self.memory[value], 0, row_width(value)

    def whole(self, value: Value) -> NDArray[Any]:
        return self.arrays.setdefault(value, np.empty(value.shape, value.dtype)).reshape(-1)

    def result(self, value: Value) -> NDArray[Any]:
        """A result in the protocol's layout."""
        if value in self.arrays:
            return self.arrays[value]
        if len(value.shape) == 4:
            return channels_first(self.threads, self.rows(value), value.shape)
        return self.rows(value)[0].reshape(value.shape)


def run_alone(
    threads: Threads, node: Callable[..., Bind], rule: Callable[..., Any], flat: bool, *arguments: Any, **options: Any
) -> Any:
    """Run an operation and return its results.

    Args:
        threads: that share the work
        node: the operation's node function
        rule: its rule in `minialex.backend.rules`
        flat: whether the operation is elementwise, so that layout does not matter
        arguments: arrays and numbers, as in the protocol
        options: as in the protocol
    """
    specs = rule(*arguments, **options)
    floats = [array for array in arguments if isinstance(array, np.ndarray) and array.dtype.kind == "f"]
    on = Alone(threads, floats[0].dtype, Slices({}, set()), {}, constant_weights=True, is_step=False)

    def shape(full: tuple[int, ...]) -> tuple[int, ...]:
        return (full[0] if full else 1, math.prod(full[1:])) if flat else full

    values = [on.argument(a.reshape(shape(a.shape)) if isinstance(a, np.ndarray) else a) for a in arguments]
    results = [spec and Value(0, shape(spec.shape), spec.dtype, "") for spec in flatten(specs)]
    feed = {name: on.array(value) for value, name in on.slices.names.items()}
    node(on, results, *values, **options)()(feed)
    made = [value and on.result(value).reshape(spec.shape) for value, spec in zip(results, flatten(specs), strict=True)]
    return tuple(made) if isinstance(specs, tuple) else made[0]
