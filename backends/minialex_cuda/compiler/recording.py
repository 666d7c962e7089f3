"""Operations recorded for a compiled step: the calls of the runtime, and the arrays that they need.

A recorded array is an object without memory. A compiled step gives it memory later, and different memory when its
workspace moves; the work refers to the object, and so follows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from minialex.backend.program import Call, Program, Symbol, Value, flatten
from minialex.philox import Stream
from minialex_cuda import ops
from minialex_cuda.compiler import layout
from minialex_cuda.compiler.updates import Tables, sgd_updates
from minialex_cuda.ops.conv2d import conv2d, conv2d_backward, conv2d_dw, conv2d_dx
from minialex_cuda.ops.dropout import dropout_at
from minialex_cuda.ops.linear import linear, linear_dw, linear_dx
from minialex_cuda.ops.max_pool2d import max_pool2d_backward
from minialex_cuda.ops.sum_over_ranks import sum_over_ranks
from minialex_cuda.runtime.array import CudaArray, without_memory
from minialex_cuda.runtime.place import Place, Work
from minialex_cuda.runtime.protocol import Convolution


@dataclass(frozen=True)
class Recorded:
    """A recorded call.

    Attributes:
        works: the work, in order
        results: the resulting arrays, in the order of the call's results
        scratched: arrays that are not needed beyond the work
        views: arrays that share the memory of others, with those
    """

    works: list[Work]
    results: list[CudaArray | None]
    scratched: list[CudaArray]
    views: list[tuple[CudaArray, CudaArray]]


class RecordingPlace(Place):
    """A place that executes nothing: calls are recorded, and `take` returns them."""

    def __init__(self, like: Place, stream: Any) -> None:
        super().__init__(like.runtime, like.device, stream, like.precision)
        self._works: list[Work] = []
        self._scratched: list[CudaArray] = []
        self._views: list[tuple[CudaArray, CudaArray]] = []

    def take(self, results: list[CudaArray | None]) -> Recorded:
        """What was recorded since the last call of this method, with its results."""
        taken = Recorded(self._works, results, self._scratched, self._views)
        self._works, self._scratched, self._views = [], [], []
        return taken

    def empty(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        return without_memory(shape, dtype)

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> CudaArray:
        self._scratched.append(without_memory(shape, dtype))
        return self._scratched[-1]

    def view(self, x: CudaArray, dtype: Any, shape: tuple[int, ...] | None = None) -> CudaArray:
        self._views.append((without_memory(x.shape if shape is None else shape, dtype), x))
        return self._views[-1][0]

    def library(self, convolution: Convolution, x: CudaArray) -> CudaArray | None:
        """Scratch memory for float32 or bfloat16 arrays, if the runtime's library can do the convolution."""
        if x.dtype not in (np.float32, np.uint16) or not x.size:
            return None
        nbytes = self.runtime.convolution_bytes(self.device, convolution)
        return None if nbytes is None else self.scratch((nbytes,), np.uint8)

    def do(self, work: Work, arguments: Iterable[Any], written: Iterable[CudaArray]) -> None:
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


OPERATIONS: dict[str, Callable[..., Any]] = {
    **ops.OPERATIONS, **layout.OPERATIONS, "copy_to": copy_to, "zeros": zeros,
    "dropout": dropout_at, "sgd_updates": sgd_updates,
    "sum_over_ranks": sum_over_ranks,
    # operations that fusion puts into a program; a ReLU's output is the last argument
    "conv2d_relu": partial(conv2d, rectify=True), "linear_relu": partial(linear, rectify=True),
    "relu_conv2d_backward": conv2d_backward, "relu_conv2d_dx": conv2d_dx, "relu_conv2d_dw": conv2d_dw,
    "conv2d_dx": conv2d_dx, "conv2d_dw": conv2d_dw, "linear_dx": linear_dx, "linear_dw": linear_dw,
    "max_pool2d_relu_backward": partial(max_pool2d_backward, rectify=True),
}  # fmt: skip


def record(
    on: RecordingPlace, call: Call, find: Callable[[Value], CudaArray], step: CudaArray, tables: Tables | None
) -> Recorded:
    """Record a call.

    Args:
        on: the place where it runs
        call: the call to record
        find: returns the array of a value that the call reads
        step: the number of the step, on the device, which dropout reads
        tables: the tables that the updates of a column read
    """

    def resolve(argument: Any) -> Any:
        if isinstance(argument, Value):
            return find(argument)
        if isinstance(argument, list | tuple) and not isinstance(argument, Stream):
            return type(argument)(resolve(item) for item in argument)
        return argument

    args = [resolve(argument) for argument in call.args]
    kwargs = {name: resolve(value) for name, value in call.kwargs.items()}
    if call.operation in ("dropout", "dropout_last"):
        args, kwargs["stream"] = [*args, step], replace(kwargs["stream"], step=0)
    elif call.operation == "sgd_updates":
        args, kwargs = [*args, tables], {"momentum": kwargs["momentum"]}
    return on.take(flatten(OPERATIONS[call.operation](on, *args, **kwargs)))


def can_compile(program: Program) -> bool:
    """Whether all of a program's operations are known here."""
    return all(call.operation in OPERATIONS and _symbols_are_expected(call) for call in program.calls)


def _symbols_are_expected(call: Call) -> bool:
    """Only the step of dropout and the rates of updates may be symbols."""
    given = [name for name, value in call.kwargs.items() if isinstance(value, Symbol)]
    if any(isinstance(value, Symbol) for value in call.args):
        return False
    if call.operation == "sgd_update":
        return given == ["learning_rate"]
    if call.operation in ("dropout", "dropout_last"):
        return not given and isinstance(call.kwargs["stream"].step, Symbol)
    return not given
