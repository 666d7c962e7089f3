"""Layer-wise adaptive rate scaling (LARS): one pass for both norms, one for the result."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task
from minialex_numba.runtime.jit import kernel

PIECE = 1 << 15
"""Elements per item: the items' sums are added in order, so the bits do not depend on the threads."""


@kernel(fastmath={"reassoc", "contract"})
def squares_kernel(worker, begin, end, w, dw, size, squares):
    """squares[item] = Σ w² and Σ dw² of a piece, in double precision."""
    for item in range(begin, end):
        of_w = of_dw = 0.0
        for i in range(item * PIECE, min((item + 1) * PIECE, size)):
            of_w += np.float64(w[i]) * np.float64(w[i])
            of_dw += np.float64(dw[i]) * np.float64(dw[i])
        squares[item, 0] = of_w
        squares[item, 1] = of_dw


@kernel
def scaled_kernel(worker, begin, end, w, dw, size, ratio, decay, scaled):
    for item in range(begin, end):
        for i in range(item * PIECE, min((item + 1) * PIECE, size)):
            scaled[i] = ratio * (dw[i] + decay * w[i])


def scale_by_trust_ratio(
    on: Buffers, results: Sequence[Value], w: Value, dw: Value, *, trust_coefficient: float, weight_decay: float
) -> Bind:
    """λ·(dw + decay·w) with λ = η·‖w‖ / (‖dw‖ + decay·‖w‖), or 1 if one of the norms is 0; η is the coefficient."""

    def bind() -> Task:
        arrays = on.array(w).data.reshape(-1), on.whole(dw)
        scaled, size, decay = on.whole(results[0]), math.prod(dw.shape), on.number(weight_decay)
        squares = np.zeros((-(-size // PIECE), 2))

        def task(feed: Feed) -> None:
            on.threads.run(squares_kernel, len(squares), *arrays, size, squares)
            w_norm, dw_norm = map(math.sqrt, squares.sum(axis=0).tolist())
            ratio = 1.0
            if w_norm != 0 and dw_norm != 0:
                ratio = trust_coefficient * w_norm / (dw_norm + weight_decay * w_norm)
            on.threads.run(scaled_kernel, len(squares), *arrays, size, on.number(ratio), decay, scaled)

        return task

    return bind
