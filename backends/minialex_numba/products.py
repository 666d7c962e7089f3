"""Sizes of the tiles that matrix products are made of, where a factor's rows begin, and how a result is finished."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_numba import simd
from minialex_numba.kernels import kernel
from minialex_numba.vectors import ACROSS, BYTES, ROWS

NARROW = 7.5 / 14
"""Time of a tile of one vector a row, over that of two; measured on a processor with AVX-512."""


def lanes(dtype: Any) -> int:
    """Numbers of a vector."""
    return BYTES // int(np.dtype(dtype).itemsize)


def width(dtype: Any) -> int:
    """Numbers of a tile's widest row."""
    return ACROSS // int(np.dtype(dtype).itemsize)


def narrowest(K: int, dtype: Any) -> int:
    """Numbers of a tile's row for K columns: one vector where the tiles' unused columns would cost more than reading."""
    lane, wide = lanes(dtype), width(dtype)
    return lane if -(-K // lane) * NARROW < -(-K // wide) else wide


def up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `size`."""
    return -(-size // step) * step


def row_table(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows begin, the last repeated until whole tiles are full."""
    missing = up(len(starts), ROWS) - len(starts)
    return np.concatenate([starts, np.repeat(starts[-1:], missing)]) if missing else starts


@kernel
def finish(y, y0, x, x0, bias, bias0, relu, like, like0, masked, n):
    """At most n numbers, one vector, of y from x and the bias; 0 where negative (`relu`), or where `like` is not
    positive (`masked`)."""
    zero = simd.spread(x, 0)
    value = simd.load(x, x0, n) + simd.load(bias, bias0, n)
    if relu:
        value = simd.where_wins(value, zero, value, zero)  # not a number stays
    if masked:
        value = simd.where_more(simd.load(like, like0, n), zero, value, zero)
    simd.store(y, y0, value, n)
