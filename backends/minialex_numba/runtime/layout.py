"""Memory layouts, and the kernels that convert between them.

Between operations images are stored N C H W, as the protocol says. Kernels that look at neighbouring channels or places
work on N H W C ("channels last"): there the channels of a place are contiguous, so every loop over them vectorises
fully. Such an array is passed to a kernel as `Rows`.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_numba.runtime.jit import kernel
from minialex_numba.runtime.threads import Threads

Floats = NDArray[np.floating[Any]]
"""float32 or float64; results have the dtype of the arguments."""

ALIGNMENT = 64
PLACES = 64  # moved at a time


Rows = tuple[NDArray[Any], int, int]
"""Rows of numbers in a flat array, the channels of each place or the features of each image: the array, the index of the
first number, and the stride from row to row, which exceeds a row's length if the row is a slice of a wider one."""


def empty(size: int, dtype: Any) -> NDArray[Any]:
    """A flat, uninitialised array aligned to a cache line."""
    itemsize = np.dtype(dtype).itemsize
    room = np.empty(size * itemsize + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    return room[begin : begin + size * itemsize].view(dtype)


@kernel
def channels_last_kernel(worker, begin, end, x, y, C, places):
    """Convert rows of images [N, C · places] to rows of places [N · places, C]; see `items`."""
    (x, x0, ldx), (y, y0, ldy) = x, y
    blocks = (places + PLACES - 1) // PLACES
    for item in range(begin, end):
        n = item // blocks
        first = (item - n * blocks) * PLACES
        last = min(first + PLACES, places)
        for c in range(C):
            source = x0 + n * ldx + c * places
            target = y0 + n * places * ldy + c
            for p in range(first, last):
                y[target + p * ldy] = x[source + p]


@kernel
def channels_first_kernel(worker, begin, end, x, y, C, places):
    """The inverse."""
    (x, x0, ldx), (y, y0, ldy) = x, y
    blocks = (places + PLACES - 1) // PLACES
    for item in range(begin, end):
        n = item // blocks
        first = (item - n * blocks) * PLACES
        last = min(first + PLACES, places)
        for c in range(C):
            source = x0 + n * places * ldx + c
            target = y0 + n * ldy + c * places
            for p in range(first, last):
                y[target + p] = x[source + p * ldx]


def items(N: int, places: int) -> int:
    """Number of items in converting the layout of N images of `places` places each."""
    return N * -(-places // PLACES)


def channels_last(threads: Threads, x: NDArray[Any]) -> Rows:
    """x [N,C,H,W] as rows in the order N H W C."""
    N, C, H, W = x.shape
    y = (empty(x.size, x.dtype), 0, C)
    threads.run(channels_last_kernel, items(N, H * W), (x.reshape(-1), 0, C * H * W), y, C, H * W)
    return y


def channels_first(threads: Threads, x: Rows, shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse: rows in the order N H W C as [N,C,H,W]."""
    N, C, H, W = shape
    y = np.empty(shape, x[0].dtype)
    threads.run(channels_first_kernel, items(N, H * W), x, (y.reshape(-1), 0, C * H * W), C, H * W)
    return y
