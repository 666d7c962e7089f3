"""Local response normalisation over neighbouring channels, channels last.

Rows of some places at a time are worked on in scratch memory that stays in the cache: their squares, with zeros
between one place's channels and the next's, so that one long loop sums all windows.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats, channels_first, channels_last, empty
from minialex_numba.pool import Pool

BLOCK = 32
"""Places that are worked on at a time."""


def scratch_size(C: int, size: int) -> int:
    """Numbers of scratch memory for each thread: three rows of `BLOCK` places with room between them."""
    return 3 * (BLOCK + 1) * (C + size)


@kernel
def window_sums(x, x0, y, y0, count, size):
    """y[i] = Σ_{j < size} x[i + j], added from the first to the last."""
    if size == 5:
        for i in range(count):
            a = x0 + i
            y[y0 + i] = x[a] + x[a + 1] + x[a + 2] + x[a + 3] + x[a + 4]
        return
    for i in range(count):
        y[y0 + i] = x[x0 + i]
    for j in range(1, size):
        for i in range(count):
            y[y0 + i] += x[x0 + i + j]


@kernel
def inverse_power(x, x0, y, y0, count, beta):
    """y[i] = x[i]^(−β)."""
    one = x.dtype.type(1)
    if beta == x.dtype.type(0.75):
        for i in range(count):
            root = np.sqrt(x[x0 + i])
            y[y0 + i] = one / (root * np.sqrt(root))
    else:
        for i in range(count):
            y[y0 + i] = x[x0 + i] ** -beta


@kernel
def spread_squares(x, x0, ldx, C, places, squares, s0, size, before):
    """Squares of x, each place's channels after `before` zeros and before the rest of size − 1."""
    zero = x.dtype.type(0)
    pitch = C + size - 1
    for p in range(places):
        a, b = x0 + p * ldx, s0 + p * pitch
        for j in range(before):
            squares[b + j] = zero
        b += before
        for c in range(C):
            squares[b + c] = x[a + c] * x[a + c]
        for j in range(C, C + size - 1 - before):
            squares[b + j] = zero


@kernel
def forward_kernel(worker, begin, end, x, x0, ldx, C, size, k, alpha, beta, y, y0, ldy, scale, keep, scratch, room):
    before = size // 2
    pitch = C + size - 1
    third = room // 3
    squares = worker * room
    sums = squares + third
    powers = sums + third
    for first in range(begin, end, BLOCK):
        places = min(BLOCK, end - first)
        count = places * pitch - (size - 1)
        spread_squares(x, x0 + first * ldx, ldx, C, places, scratch, squares, size, before)
        window_sums(scratch, squares, scratch, sums, count, size)
        for i in range(count):
            scratch[sums + i] = k + alpha * scratch[sums + i]
        inverse_power(scratch, sums, scratch, powers, count, beta)
        for p in range(places):
            a, b, d = x0 + (first + p) * ldx, y0 + (first + p) * ldy, powers + p * pitch
            for c in range(C):
                y[b + c] = x[a + c] * scratch[d + c]
        if keep:
            for p in range(places):
                b, d = (first + p) * C, sums + p * pitch
                for c in range(C):
                    scale[b + c] = scratch[d + c]


@kernel
def backward_kernel(
    worker, begin, end, dy, dy0, lddy, x, x0, ldx, scale, given, C, size, k, alpha, beta, relu, dx, dx0, lddx, scratch, room
):  # fmt: skip
    """With `given` the scale is read, else it is computed anew; with `relu` the gradient is 0 where x is."""
    zero = x.dtype.type(0)
    before = size // 2
    after = size - 1 - before
    pitch = C + size - 1
    third = room // 3
    first_row = worker * room
    sums = first_row + third
    powers = sums + third
    factor = -(x.dtype.type(2) * alpha * beta)
    for first in range(begin, end, BLOCK):
        places = min(BLOCK, end - first)
        count = places * pitch - (size - 1)
        if given:
            for p in range(places):
                a, d = (first + p) * C, sums + p * pitch
                for c in range(C):
                    scratch[d + c] = scale[a + c]
                for c in range(C, pitch):
                    scratch[d + c] = x.dtype.type(1)
        else:
            spread_squares(x, x0 + first * ldx, ldx, C, places, scratch, first_row, size, before)
            window_sums(scratch, first_row, scratch, sums, count, size)
            for i in range(count):
                scratch[sums + i] = k + alpha * scratch[sums + i]
        inverse_power(scratch, sums, scratch, powers, count, beta)
        for p in range(places):
            a, b, d = x0 + (first + p) * ldx, dy0 + (first + p) * lddy, p * pitch
            e = first_row + d
            for c in range(after):
                scratch[e + c] = zero
            e += after
            for c in range(C):
                scratch[e + c] = dy[b + c] * (x[a + c] * scratch[powers + d + c]) / scratch[sums + d + c]
            for c in range(C, C + before):
                scratch[e + c] = zero
        window_sums(scratch, first_row, scratch, sums, count, size)
        for p in range(places):
            a, b, d, e = x0 + (first + p) * ldx, dy0 + (first + p) * lddy, p * pitch, dx0 + (first + p) * lddx
            if relu:
                for c in range(C):
                    value = x[a + c]
                    slope = dy[b + c] * scratch[powers + d + c] + factor * value * scratch[sums + d + c]
                    dx[e + c] = slope if value > zero else zero
            else:
                for c in range(C):
                    dx[e + c] = dy[b + c] * scratch[powers + d + c] + factor * x[a + c] * scratch[sums + d + c]


def local_response_norm(
    pool: Pool, x: Floats, *, size: int, k: float, alpha: float, beta: float
) -> tuple[Floats, Floats]:
    """y = x · scale^(−β), scale[c] = k + α · Σ_{c' in the window of c} x[c']²; returns y and scale."""
    N, C, H, W = x.shape
    last, y, scale = channels_last(pool, x), empty(x.size, x.dtype), empty(x.size, x.dtype)
    room = scratch_size(C, size)
    scratch = empty(pool.threads * room, x.dtype)
    numbers = tuple(x.dtype.type(value) for value in (k, alpha, beta))
    pool.run(forward_kernel, N * H * W, last, 0, C, C, size, *numbers, y, 0, C, scale, True, scratch, room, grain=BLOCK)
    return channels_first(pool, y, x.shape), channels_first(pool, scale, x.shape)


def local_response_norm_backward(
    pool: Pool, dy: Floats, x: Floats, y: Floats, scale: Floats, *, size: int, alpha: float, beta: float
) -> Floats:
    """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c']."""
    del y  # x · scale^(−β), which is computed anew
    N, C, H, W = x.shape
    dx = empty(x.size, x.dtype)
    room = scratch_size(C, size)
    scratch = empty(pool.threads * room, x.dtype)
    arrays = channels_last(pool, dy), 0, C, channels_last(pool, x), 0, C, channels_last(pool, scale), True
    numbers = tuple(x.dtype.type(value) for value in (0, alpha, beta))
    pool.run(backward_kernel, N * H * W, *arrays, C, size, *numbers, False, dx, 0, C, scratch, room, grain=BLOCK)
    return channels_first(pool, dx, x.shape)
