"""Max-pooling, channels last: a forward pass that writes down which place of a window won, and a backward pass that reads it.

The gradient is gathered: every place of x looks at the windows that hold it, so that each number is written once.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend.rules import pool_size
from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats, channels_first, channels_last, empty
from minialex_numba.pool import Pool
from minialex_numba.simd import (
    lanes,
    load,
    load_counts,
    spread,
    store,
    store_counts,
    where_more,
    where_same,
    where_wins,
)


def winner_dtype(size: int) -> Any:
    """The smallest kind of integer that counts the places of a window; its largest value says that none won."""
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if size * size < np.iinfo(kind).max)


@kernel
def pool_row(x, x0, ldx, ring, C, W, top, rows, size, stride, Q, y, y0, ldy, winner, w0, nobody, keep):
    """One row of windows, whose rows are top … top + rows − 1 of x; row i of x is kept in place i modulo `ring`."""
    for q in range(Q):
        left = q * stride
        columns = min(size, W - left)
        for c in range(0, C, lanes(x)):
            first = x0 + ((top % ring) * W + left) * ldx + c
            best = load(x, first, C - c)
            won = spread(x, 0)
            for r in range(rows):
                a = x0 + (((top + r) % ring) * W + left) * ldx + c
                for s in range(columns):
                    value = load(x, a + s * ldx, C - c)
                    if keep:
                        won = where_wins(value, best, spread(x, r * size + s), won)
                    best = where_wins(value, best, value, best)
            store(y, y0 + q * ldy + c, best, C - c)
            if keep:  # not a number wins, and gets no gradient
                store_counts(winner, w0 + q * C + c, where_same(best, best, won, spread(x, nobody)), C - c)


@kernel
def gather_windows(
    dy, dy0, lddy, winner, w0, x, x0, ldx, y, y0, ldy, every, relu, C, i, first, last, size, stride, P, Q, dx, dx0, lddx
):  # fmt: skip
    """The gradient of the places first … last − 1 in row i of one image; see `backward_kernel`."""
    zero = spread(dy, 0)
    first_p = max(0, (i - size) // stride + 1)
    last_p = min(P - 1, i // stride)
    first_q = max(0, (first - size) // stride + 1)
    last_q = min(Q - 1, first // stride)
    for j in range(first, last):
        if first_q * stride + size <= j:
            first_q += 1
        if last_q + 1 < Q and (last_q + 1) * stride <= j:
            last_q += 1
        a, e = x0 + (j - first) * ldx, dx0 + (j - first) * lddx
        for c in range(0, C, lanes(dy)):
            total = zero
            for p in range(first_p, last_p + 1):
                for q in range(first_q, last_q + 1):
                    window = p * Q + q
                    slope = load(dy, dy0 + window * lddy + c, C - c)
                    if every:
                        mine, theirs = load(x, a + c, C - c), load(y, y0 + window * ldy + c, C - c)
                    else:
                        mine = spread(dy, (i - p * stride) * size + j - q * stride)
                        theirs = load_counts(winner, w0 + window * C + c, slope, C - c)
                    total = total + where_same(mine, theirs, slope, zero)
            if relu:
                total = where_more(load(x, a + c, C - c), zero, total, zero)
            store(dx, e + c, total, C - c)


@kernel
def forward_kernel(worker, begin, end, x, x0, ldx, C, H, W, size, stride, P, Q, y, y0, ldy, winner, nobody, keep):
    """Items are rows of windows; with `keep` the winners are written down."""
    for item in range(begin, end):
        n, p = divmod(item, P)
        pool_row(
            x, x0 + n * H * W * ldx, ldx, H, C, W, p * stride, min(size, H - p * stride), size, stride, Q,
            y, y0 + item * Q * ldy, ldy, winner, item * Q * C, nobody, keep,
        )  # fmt: skip


@kernel
def backward_kernel(
    worker, begin, end, dy, dy0, lddy, winner, x, x0, ldx, y, y0, ldy, every, relu, C, H, W, size, stride, P, Q, dx, dx0, lddx
):  # fmt: skip
    """With `every` all places that equal the maximum get its gradient, else the winner; with `relu` none where x ≤ 0.

    Items are rows of x.
    """
    for item in range(begin, end):
        n, i = divmod(item, H)
        gather_windows(
            dy, dy0 + n * P * Q * lddy, lddy, winner, n * P * Q * C, x, x0 + item * W * ldx, ldx, y, y0 + n * P * Q * ldy,
            ldy, every, relu, C, i, 0, W, size, stride, P, Q, dx, dx0 + item * W * lddx, lddx,
        )  # fmt: skip


def max_pool2d(pool: Pool, x: Floats, *, size: int, stride: int, ceil: bool) -> Floats:
    """y[n,c,p,q] = the largest x in the window that begins at (p·stride, q·stride)."""
    N, C, H, W = x.shape
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y, _ = _forward(pool, channels_last(pool, x), x.shape, P, Q, size, stride, False)
    return channels_first(pool, y, (N, C, P, Q))


def _forward(
    pool: Pool, x: Floats, shape: tuple[int, ...], P: int, Q: int, size: int, stride: int, keep: bool
) -> tuple[Floats, np.ndarray[Any, Any]]:
    N, C, H, W = shape
    kind = winner_dtype(size)
    y, winner = empty(N * P * Q * C, x.dtype), empty(N * P * Q * C if keep else 0, kind)
    pool.run(
        forward_kernel, N * P, x, 0, C, C, H, W, size, stride, P, Q, y, 0, C, winner, int(np.iinfo(kind).max), keep
    )
    return y, winner


def max_pool2d_backward(
    pool: Pool, dy: Floats, x: Floats, y: Floats, *, size: int, stride: int, ceil: bool, ties: str
) -> Floats:
    """Each window gives its dy to its maximum: the first in row order, or with ties = "all" to each of them."""
    del ceil  # the size of y says it
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    last = channels_last(pool, x)
    largest, winner = _forward(pool, last, x.shape, P, Q, size, stride, True)
    dx = empty(x.size, x.dtype)
    arrays = channels_last(pool, dy), 0, C, winner, last, 0, C, largest, 0, C
    pool.run(backward_kernel, N * H, *arrays, ties == "all", False, C, H, W, size, stride, P, Q, dx, 0, C)
    return channels_first(pool, dx, x.shape)
