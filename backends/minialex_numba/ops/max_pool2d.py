"""Max pooling, channels last: the forward pass records which place of each window won, the backward pass reads it.

The gradient is gathered: every place of x looks at the windows that contain it, so each number is written once.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Compact, in_order
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.layout import empty
from minialex_numba.runtime.vector import (
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


class Windows(NamedTuple):
    """The P × Q windows, each size × size, of images [C,H,W]; `nobody` marks a window without a winner."""

    C: int
    H: int
    W: int
    size: int
    stride: int
    P: int
    Q: int
    nobody: int


def windows_of(x: tuple[int, ...], y: tuple[int, ...], size: int, stride: int) -> Windows:
    """The windows that pool images of shape x to shape y."""
    (_, C, H, W), (P, Q) = x, y[2:]
    return Windows(C, H, W, size, stride, P, Q, int(np.iinfo(winner_dtype(size)).max))


def winner_dtype(size: int) -> Any:
    """The smallest unsigned integer type that numbers the places of a window; its largest value means that none won."""
    return next(kind for kind in (np.uint8, np.uint16, np.uint32) if size * size < np.iinfo(kind).max)


@part
def pool_row(x, ring, top, rows, windows, y, winner, w0):
    """Pool one row of windows, over rows top … top + rows − 1 of x; row i of x is stored at row i modulo `ring`.

    The winners are written from w0 on, unless they have no memory.
    """
    (x, x0, ldx), (y, y0, ldy) = x, y
    C, _, W, size, stride, _, Q, nobody = windows
    keep = winner.size > 0
    zero, one = spread(x, 0), spread(x, 1)
    for q in range(Q):
        left = q * stride
        across = min(size, W - left)
        for c in range(0, C, lanes(x)):
            first = x0 + ((top % ring) * W + left) * ldx + c
            best = load(x, first, C - c)
            won = zero
            for r in range(rows):
                a = x0 + (((top + r) % ring) * W + left) * ldx + c
                place = spread(x, r * size)
                for _ in range(across):
                    value = load(x, a, C - c)
                    won = where_wins(value, best, place, won)
                    best = where_wins(value, best, value, best)
                    place = place + one
                    a += ldx
            store(y, y0 + q * ldy + c, best, C - c)
            if keep:  # NaN wins, and gets no gradient
                store_counts(winner, w0 + q * C + c, where_same(best, best, won, spread(x, nobody)), C - c)


@part
def gather_windows(dy, winner, w0, x, y, every, relu, i, first, last, windows, dx):
    """The gradient of the places first … last − 1 in row i of one image; see `backward_kernel`."""
    (dy, dy0, lddy), (x, x0, ldx), (y, y0, ldy), (dx, dx0, lddx) = dy, x, y, dx
    C, _, _, size, stride, P, Q, _ = windows
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
def forward_kernel(worker, begin, end, x, windows, y, winner):
    """Items are rows of windows."""
    (x, x0, ldx), (y, y0, ldy), g = x, y, Windows(*windows)
    for item in range(begin, end):
        n, p = divmod(item, g.P)
        pool_row(
            (x, x0 + n * g.H * g.W * ldx, ldx), g.H, p * g.stride, min(g.size, g.H - p * g.stride), windows,
            (y, y0 + item * g.Q * ldy, ldy), winner, item * g.Q * g.C,
        )  # fmt: skip


@kernel
def backward_kernel(worker, begin, end, dy, winner, x, y, every, relu, windows, dx):
    """With `every`, all places equal to the maximum get its gradient, else the winner; with `relu`, none where x ≤ 0.

    Items are rows of x.
    """
    (dy, dy0, lddy), (x, x0, ldx), (y, y0, ldy), (dx, dx0, lddx), g = dy, x, y, dx, Windows(*windows)
    for item in range(begin, end):
        n, i = divmod(item, g.H)
        window = n * g.P * g.Q
        gather_windows(
            (dy, dy0 + window * lddy, lddy), winner, window * g.C, (x, x0 + item * g.W * ldx, ldx),
            (y, y0 + window * ldy, ldy), every, relu, i, 0, g.W, windows, (dx, dx0 + item * g.W * lddx, lddx),
        )  # fmt: skip


def max_pool2d(on: Buffers, results: Sequence[Value | None], x: Value, *, size: int, stride: int, ceil: bool) -> Bind:
    """y[n,c,p,q] = the largest x in the window that begins at (p·stride, q·stride).

    Results are y and, if the backward pass reads them, the winners.
    """
    del ceil  # the size of y shows it
    y, *winners = results
    assert y is not None
    winner = Compact(winners[0]) if winners and winners[0] else empty(0, winner_dtype(size))
    windows = windows_of(x.shape, y.shape, size, stride)
    return on.launch(forward_kernel, x.shape[0] * windows.P, x, windows, y, winner)


def max_pool2d_backward(
    on: Buffers, results: Sequence[Value], dy: Value, *read: Value, size: int, stride: int, ceil: bool, ties: str,
    like: Value | None = None,
) -> Bind:  # fmt: skip
    """Each window passes its dy to its maximum: the first in row order or, with ties = "all", every one.

    Reads x and y or, with ties = "first", any kept winners; with `like`, the ReLU's gradient is applied, too.
    """
    del ceil
    every, dx = ties == "all", results[0]
    windows = windows_of(dx.shape, dy.shape, size, stride)
    N, _, H, _ = dx.shape
    if len(read) == 1:
        winner: Any = Compact(read[0])
    else:
        winner = empty(0 if every else math.prod(dy.shape), winner_dtype(size))
    x, y = read if every else (like or dy, dy)
    gather = on.launch(backward_kernel, N * H, dy, winner, x, y, every, like is not None, windows, dx)
    if every or len(read) == 1:
        return gather
    largest = empty(math.prod(dy.shape), on.dtype), 0, windows.C
    find = on.launch(forward_kernel, N * windows.P, read[0], windows, largest, winner)
    return lambda: in_order(find(), gather())
