"""The update rule in one pass over weight, momentum and gradient."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool
from minialex_numba.simd import count_finite, lanes, load, multiply_add, spread, store, where_finite

PIECE = 1 << 15
"""Elements of one item."""


@kernel
def update(w, v, i, dw, j, count, rate, momentum, decay):
    """The new v and w of `count` elements from i; returns how many are not finite and were left as they are."""
    times, step, pull = spread(w, momentum), spread(w, -rate), spread(w, -(decay * rate))
    kept = 0
    for c in range(0, count, lanes(w)):
        old_w, old_v = load(w, i + c, count - c), load(v, i + c, count - c)
        new_v = multiply_add(times, old_v, multiply_add(pull, old_w, step * load(dw, j + c, count - c)))
        new_w = old_w + new_v
        store(v, i + c, where_finite(new_w, new_v, old_v), count - c)
        store(w, i + c, where_finite(new_w, new_w, old_w), count - c)
        kept += min(lanes(w), count - c) - count_finite(new_w, count - c)
    return kept


@kernel
def update_kernel(worker, begin, end, w, v, dw, rate, momentum, decay, kept):
    for item in range(begin, end):
        first = item * PIECE
        kept[item] = update(w, v, first, dw, first, min(PIECE, w.size - first), rate, momentum, decay)


def pieces(size: int) -> int:
    """Items that an array of so many elements makes."""
    return -(-size // PIECE)


def sgd_update(
    pool: Pool, w: Floats, v: Floats, dw: Floats, *, learning_rate: float, momentum: float, weight_decay: float
) -> NDArray[np.int64]:
    """v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v, in place; returns how many elements were not finite and kept."""
    kept = np.zeros(pieces(w.size), np.int64)
    numbers = (w.dtype.type(value) for value in (learning_rate, momentum, weight_decay))
    pool.run(update_kernel, kept.size, w.reshape(-1), v.reshape(-1), dw.reshape(-1), *numbers, kept)
    return np.array(kept.sum(), np.int64)
