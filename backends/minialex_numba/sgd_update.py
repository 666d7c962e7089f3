"""The update rule in one pass over weight, momentum and gradient."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool

PIECE = 1 << 15
"""Elements of one item."""


@kernel
def update(w, v, i, slope, rate, momentum, decay):
    """The new v and w of element i; 1 if they are not finite and were left as they are, else 0."""
    new_v = momentum * v[i] - decay * rate * w[i] - rate * slope
    new_w = w[i] + new_v
    finite = new_w - new_w == 0
    v[i] = new_v if finite else v[i]
    w[i] = new_w if finite else w[i]
    return 0 if finite else 1


@kernel
def update_kernel(worker, begin, end, w, v, dw, rate, momentum, decay, kept):
    for item in range(begin, end):
        count = 0
        for i in range(item * PIECE, min((item + 1) * PIECE, w.size)):
            count += update(w, v, i, dw[i], rate, momentum, decay)
        kept[item] = count


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
