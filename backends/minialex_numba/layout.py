"""Memory layouts, and the kernels that change them.

Between operations images lie N C H W, as the protocol says. Kernels that look at neighbouring channels or places
work on N H W C ("channels last"): there the channels of a place are contiguous, so that every loop over them runs at
the width of the processor's vectors. Such an array is given to a kernel as a flat array, the index of its first
number, and the distance between two places (which is more than its channels where it is a slice of another's).
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_numba.kernels import kernel
from minialex_numba.pool import Pool

Floats = NDArray[np.floating[Any]]
"""float32 or float64; results have the dtype of the arguments."""

ALIGNMENT = 64
PLACES = 64  # that are moved at a time


def empty(size: int, dtype: Any) -> NDArray[Any]:
    """A flat array that begins at a cache line."""
    itemsize = np.dtype(dtype).itemsize
    room = np.empty(size * itemsize + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    return room[begin : begin + size * itemsize].view(dtype)


@kernel
def _channels_last(worker, begin, end, x, x0, sample, y, y0, ldy, C, places):
    blocks = (places + PLACES - 1) // PLACES
    for item in range(begin, end):
        n = item // blocks
        first = (item - n * blocks) * PLACES
        last = min(first + PLACES, places)
        for c in range(C):
            source = x0 + n * sample + c * places
            target = y0 + n * places * ldy + c
            for p in range(first, last):
                y[target + p * ldy] = x[source + p]


@kernel
def _channels_first(worker, begin, end, x, x0, ldx, y, y0, sample, C, places):
    blocks = (places + PLACES - 1) // PLACES
    for item in range(begin, end):
        n = item // blocks
        first = (item - n * blocks) * PLACES
        last = min(first + PLACES, places)
        for c in range(C):
            source = x0 + n * places * ldx + c
            target = y0 + n * sample + c * places
            for p in range(first, last):
                y[target + p] = x[source + p * ldx]


def items(N: int, places: int) -> int:
    """Pieces of work that changing the layout of N images of so many places has."""
    return N * -(-places // PLACES)


def channels_last(pool: Pool, x: NDArray[Any]) -> NDArray[Any]:
    """x [N,C,H,W] as a flat array in the order N H W C."""
    N, C, H, W = x.shape
    y = empty(x.size, x.dtype)
    pool.run(_channels_last, items(N, H * W), x.reshape(-1), 0, C * H * W, y, 0, C, C, H * W)
    return y


def channels_first(pool: Pool, x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """The inverse: a flat array in the order N H W C as [N,C,H,W]."""
    N, C, H, W = shape
    y = np.empty(shape, x.dtype)
    pool.run(_channels_first, items(N, H * W), x, 0, C, y.reshape(-1), 0, C * H * W, C, H * W)
    return y
