"""Max-pooling, channels last: a forward pass that writes down which place of a window won, and a backward pass that reads it.

The gradient is gathered: every place of x looks at the windows that hold it, so that each number is written once.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from minialex.shapes import pool_size
from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats, channels_first, channels_last, empty
from minialex_numba.pool import Pool


def winner_dtype(size: int) -> Any:
    """The smallest kind of integer that counts the places of a window; its largest value says that none won."""
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if size * size < np.iinfo(kind).max)


@kernel
def forward_kernel(worker, begin, end, x, x0, ldx, C, H, W, size, stride, P, Q, y, y0, ldy, winner, nobody):
    for item in range(begin, end):
        n, p = divmod(item, P)
        top = p * stride
        rows = min(size, H - top)
        for q in range(Q):
            left = q * stride
            columns = min(size, W - left)
            b = y0 + (item * Q + q) * ldy
            w = (item * Q + q) * C
            a = x0 + ((n * H + top) * W + left) * ldx
            for c in range(C):
                y[b + c] = x[a + c]
                winner[w + c] = 0
            for r in range(rows):
                for s in range(columns):
                    a = x0 + ((n * H + top + r) * W + left + s) * ldx
                    place = winner.dtype.type(r * size + s)
                    for c in range(C):
                        value = x[a + c]
                        wins = value > y[b + c] or value != value
                        y[b + c] = value if wins else y[b + c]
                        winner[w + c] = place if wins else winner[w + c]
            for c in range(C):
                if y[b + c] != y[b + c]:  # not a number wins, and gets no gradient
                    winner[w + c] = nobody


@kernel
def backward_kernel(
    worker, begin, end, dy, dy0, lddy, winner, x, x0, ldx, y, y0, ldy, every, relu, C, H, W, size, stride, P, Q, dx, dx0, lddx
):  # fmt: skip
    """With `every` all places that equal the maximum get its gradient, else the winner; with `relu` none where x ≤ 0."""
    zero = dy.dtype.type(0)
    for item in range(begin, end):
        n, i = divmod(item, H)
        first_p = max(0, (i - size) // stride + 1)
        last_p = min(P - 1, i // stride)
        for j in range(W):
            first_q = max(0, (j - size) // stride + 1)
            last_q = min(Q - 1, j // stride)
            e = dx0 + (item * W + j) * lddx
            a = x0 + (item * W + j) * ldx
            for c in range(C):
                dx[e + c] = zero
            for p in range(first_p, last_p + 1):
                for q in range(first_q, last_q + 1):
                    window = (n * P + p) * Q + q
                    b = dy0 + window * lddy
                    if every:
                        d = y0 + window * ldy
                        for c in range(C):
                            dx[e + c] += dy[b + c] if x[a + c] == y[d + c] else zero
                    else:
                        d = window * C
                        place = winner.dtype.type((i - p * stride) * size + j - q * stride)
                        for c in range(C):
                            dx[e + c] += dy[b + c] if winner[d + c] == place else zero
            if relu:
                for c in range(C):
                    dx[e + c] = dx[e + c] if x[a + c] > zero else zero


def max_pool2d(pool: Pool, x: Floats, *, size: int, stride: int, ceil: bool) -> Floats:
    """y[n,c,p,q] = the largest x in the window that begins at (p·stride, q·stride)."""
    N, C, H, W = x.shape
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y, _ = _forward(pool, channels_last(pool, x), x.shape, P, Q, size, stride)
    return channels_first(pool, y, (N, C, P, Q))


def _forward(
    pool: Pool, x: Floats, shape: tuple[int, ...], P: int, Q: int, size: int, stride: int
) -> tuple[Floats, np.ndarray[Any, Any]]:
    N, C, H, W = shape
    kind = winner_dtype(size)
    y, winner = empty(N * P * Q * C, x.dtype), empty(N * P * Q * C, kind)
    nobody = kind(np.iinfo(kind).max)
    pool.run(forward_kernel, N * P, x, 0, C, C, H, W, size, stride, P, Q, y, 0, C, winner, nobody)
    return y, winner


def max_pool2d_backward(
    pool: Pool, dy: Floats, x: Floats, y: Floats, *, size: int, stride: int, ceil: bool, ties: str
) -> Floats:
    """Each window gives its dy to its maximum: the first in row order, or with ties = "all" to each of them."""
    del ceil  # the size of y says it
    N, C, H, W = x.shape
    P, Q = y.shape[2:]
    last = channels_last(pool, x)
    largest, winner = _forward(pool, last, x.shape, P, Q, size, stride)
    dx = empty(x.size, x.dtype)
    arrays = channels_last(pool, dy), 0, C, winner, last, 0, C, largest, 0, C
    pool.run(backward_kernel, N * H, *arrays, ties == "all", False, C, H, W, size, stride, P, Q, dx, 0, C)
    return channels_first(pool, dx, x.shape)
