"""Some images of many that are on the device already."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Grid, GridKernel
from minialex_cuda.runtime.place import Place

LANES, EACH = 256, 16
"""Threads of a block, and numbers that each of them copies, at stride `LANES`."""


def _take_rows(row, piece, _, lane, __, whole, rows, out, width):
    """out[row] = whole[rows[row]]; a block copies a piece of a row."""
    source, target = rows[row] * width, np.int64(row) * width
    first = piece * (LANES * EACH)
    for j in range(first + lane, min(width, first + LANES * EACH), LANES):
        out[target + j] = whole[source + j]


TAKE_ROWS = GridKernel("take_rows", ("out",), _take_rows)


def take_rows(on: Place, whole: CudaArray, rows: CudaArray) -> CudaArray:
    """whole[rows], for uint8 [N, …] and int64 [n]: copied four bytes at a time if a row is a multiple of that."""
    row = math.prod(whole.shape[1:])
    out = on.empty((rows.size, *whole.shape[1:]), whole.dtype)
    together, kind = (4, np.uint32) if row % 4 == 0 else (1, np.uint8)
    width = row // together
    source, target = (on.view(x, kind, (x.size // together,)) for x in (whole, out))
    grid = Grid((rows.size, -(-width // (LANES * EACH)), 1), (LANES, 1, 1))
    on.launch(TAKE_ROWS, grid, source, rows, target, width)
    return out
