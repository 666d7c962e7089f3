"""Concatenates and splits channels, which columns need in order to read each other's."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place


def reshape(on: Place, x: CudaArray, shape: tuple[int, ...]) -> CudaArray:
    """The same numbers in another shape; nothing is copied."""
    return CudaArray(x.flat, shape, x.dtype)


@kernel("y")
def block_kernel(i, x, y, width, from_row, from_first, to_row, to_first):
    """Copy rows of `width` numbers, at stride `from_row` from `from_first` on, to rows at stride `to_row`."""
    row = i // width
    column = i - row * width
    y[row * to_row + to_first + column] = x[row * from_row + from_first + column]


def concat(on: Place, xs: Sequence[CudaArray]) -> CudaArray:
    """Concatenate arrays [N, C_i, …] along axis 1."""
    N, rest = xs[0].shape[0], xs[0].shape[2:]
    y = on.empty((N, sum(x.shape[1] for x in xs), *rest), xs[0].dtype)
    row, first = math.prod(y.shape[1:]), 0
    for x in xs:
        width = math.prod(x.shape[1:])
        on.launch(block_kernel, x.size, x, y, width, width, 0, row, first)
        first += width
    return y


def split(on: Place, x: CudaArray, sizes: Sequence[int]) -> list[CudaArray]:
    """The inverse of `concat`."""
    row, rest, first = math.prod(x.shape[1:]), x.shape[2:], 0
    pieces = []
    for size in sizes:
        y = on.empty((x.shape[0], size, *rest), x.dtype)
        width = math.prod(y.shape[1:])
        on.launch(block_kernel, y.size, x, y, width, row, first, width, 0)
        pieces.append(y)
        first += width
    return pieces
