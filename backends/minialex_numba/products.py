"""Sizes of the tiles that matrix products are made of, and the table of where a factor's rows begin."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_numba.vectors import ACROSS, BYTES, ROWS


def lanes(dtype: Any) -> int:
    """Numbers of a vector."""
    return BYTES // int(np.dtype(dtype).itemsize)


def width(dtype: Any) -> int:
    """Numbers of a tile's row."""
    return ACROSS // int(np.dtype(dtype).itemsize)


def up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `size`."""
    return -(-size // step) * step


def row_table(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows begin, the last repeated until whole tiles are full."""
    missing = up(len(starts), ROWS) - len(starts)
    return np.concatenate([starts, np.repeat(starts[-1:], missing)]) if missing else starts
