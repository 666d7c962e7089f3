"""Local response normalisation over neighbouring channels, channels last.

A block of places at a time is processed in scratch memory that stays in the cache: their squares, with size // 2 zeros
between the channels of one place and the next, so that one long loop sums all windows.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Compact, row_count
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.layout import empty
from minialex_numba.runtime.tiles import lanes as lanes_of
from minialex_numba.runtime.tiles import up
from minialex_numba.runtime.vector import WHOLE, lanes, load, multiply_add, root, spread, store, where_more

BLOCK = 32
"""Places processed at a time."""


class Norm(NamedTuple):
    """The parameters of a normalisation."""

    size: int
    k: Any
    alpha: Any
    beta: Any

    def of(self, dtype: Any) -> Norm:
        """The same parameters in a dtype."""
        number = np.dtype(dtype).type
        return Norm(self.size, number(self.k), number(self.alpha), number(self.beta))


def scratch_size(C: int, size: int, dtype: Any) -> int:
    """Numbers of scratch memory per thread: three rows of `BLOCK` places, plus one vector."""
    return 3 * up(BLOCK * (C + size // 2) + size + 2 * lanes_of(dtype), 16)


@part
def inverse_power(x, x0, y, y0, count, beta, invert):
    """y[i] = x[i]^(−β); with `invert`, x also becomes 1 / x."""
    one = x.dtype.type(1)
    if beta == x.dtype.type(0.75):
        for i in range(0, count, lanes(x)):
            half = root(load(x, x0 + i, count - i))
            power = spread(x, one) / (half * root(half))
            store(y, y0 + i, power, count - i)
            if invert:  # x^(−3/4) · x^(−1/4), without another division
                store(x, x0 + i, power * (power * half), count - i)
    else:
        for i in range(count):
            power = x[x0 + i] ** -beta
            y[y0 + i] = power
            if invert:
                x[x0 + i] = one / x[x0 + i]


@part
def spread_squares(x, C, places, squares, s0, size, before):
    """Write the squares of x after `before` zeros; size // 2 zeros follow each place's channels."""
    x, x0, ldx = x
    pitch = C + size // 2
    store(squares, s0, spread(x, 0), WHOLE)
    for i in range(lanes(x), before, lanes(x)):
        store(squares, s0 + i, spread(x, 0), WHOLE)
    for p in range(places):
        a, b = x0 + p * ldx, s0 + before + p * pitch
        for c in range(0, pitch, lanes(x)):
            value = load(x, a + c, C - c)
            store(squares, b + c, value * value, pitch - c)


@part(inline="always")
def window_sum(x, a, size):
    """Σ_{j < size} x[a + j …], added from the first to the last, for the lanes of one vector."""
    if size == 5:
        return (
            load(x, a, WHOLE) + load(x, a + 1, WHOLE) + load(x, a + 2, WHOLE) + load(x, a + 3, WHOLE)
            + load(x, a + 4, WHOLE)
        )  # fmt: skip
    total = load(x, a, WHOLE)
    for j in range(1, size):
        total = total + load(x, a + j, WHOLE)
    return total


@part
def scales(x, C, places, norm, scratch, squares, sums):
    """scratch[sums …] = k + α · Σ x² of `places` places, C + size // 2 numbers apart."""
    size, k, alpha, _ = norm
    pitch = C + size // 2
    spread_squares(x, C, places, scratch, squares, size, size // 2)
    constant, factor = spread(scratch, k), spread(scratch, alpha)
    for i in range(0, places * pitch, lanes(scratch)):
        store(scratch, sums + i, multiply_add(factor, window_sum(scratch, squares + i, size), constant), WHOLE)


@part
def normalise(x, C, places, norm, y, scale, scale0, keep, scratch, s0, room):
    """y = x · scale^(−β) for at most `BLOCK` places; with `keep`, the scale is written too, C numbers per place."""
    third = room // 3
    size, _, _, beta = norm
    pitch = C + size // 2
    sums, powers = s0 + third, s0 + 2 * third
    scales(x, C, places, norm, scratch, s0, sums)
    inverse_power(scratch, sums, scratch, powers, places * pitch, beta, False)
    (x, x0, ldx), (y, y0, ldy) = x, y
    for p in range(places):
        a, b, d = x0 + p * ldx, y0 + p * ldy, p * pitch
        for c in range(0, C, lanes(x)):
            store(y, b + c, load(x, a + c, C - c) * load(scratch, powers + d + c, WHOLE), C - c)
        if keep:
            for c in range(0, C, lanes(x)):
                store(scale, scale0 + p * C + c, load(scratch, sums + d + c, WHOLE), C - c)


@part
def denormalise(dy, x, scale, scale0, given, C, places, norm, relu, dx, scratch, s0, room):
    """The gradient for at most `BLOCK` places. With `given` the scale is read, else recomputed; with `relu` the result
    is 0 where x is not positive."""
    size, _, alpha, beta = norm
    before = size // 2
    after = size - 1 - before
    pitch = C + size // 2
    third = room // 3
    sums, powers = s0 + third, s0 + 2 * third
    zero = spread(scratch, 0)
    factor = spread(scratch, -(scratch.dtype.type(2) * alpha * beta))
    if given:
        for p in range(places):
            a, d = scale0 + p * C, sums + p * pitch
            for c in range(0, C, lanes(scratch)):
                store(scratch, d + c, load(scale, a + c, C - c), C - c)
            for c in range(C, pitch):
                scratch[d + c] = scratch.dtype.type(1)
    else:
        scales(x, C, places, norm, scratch, s0, sums)
    inverse_power(scratch, sums, scratch, powers, places * pitch, beta, True)
    if given or before != after:  # else the zeros between places are already where the squares' were
        for i in range(0, after + places * pitch, lanes(scratch)):
            store(scratch, s0 + i, zero, WHOLE)
    (dy, dy0, lddy), (x, x0, ldx), (dx, dx0, lddx) = dy, x, dx
    for p in range(places):
        a, b, d = x0 + p * ldx, dy0 + p * lddy, p * pitch
        e = s0 + after + d
        for c in range(0, C, lanes(x)):
            share = load(dy, b + c, C - c) * (load(x, a + c, C - c) * load(scratch, powers + d + c, WHOLE))
            store(scratch, e + c, share * load(scratch, sums + d + c, WHOLE), C - c)
    for p in range(places):
        a, b, d, e = x0 + p * ldx, dy0 + p * lddy, p * pitch, dx0 + p * lddx
        for c in range(0, C, lanes(x)):
            value = load(x, a + c, C - c)
            slope = load(dy, b + c, C - c) * load(scratch, powers + d + c, WHOLE)
            slope = multiply_add(factor * value, window_sum(scratch, s0 + d + c, size), slope)
            store(dx, e + c, where_more(value, zero, slope, zero) if relu else slope, C - c)


@kernel
def forward_kernel(worker, begin, end, x, C, norm, y, scale, scratch, room):
    """Items are places; the scale is written if it has memory."""
    (x, x0, ldx), (y, y0, ldy) = x, y
    for first in range(begin, end, BLOCK):
        places = min(BLOCK, end - first)
        normalise(
            (x, x0 + first * ldx, ldx), C, places, norm, (y, y0 + first * ldy, ldy), scale, first * C, scale.size > 0,
            scratch, worker * room, room,
        )  # fmt: skip


@kernel
def backward_kernel(worker, begin, end, dy, x, scale, C, norm, relu, dx, scratch, room):
    """Items are places; the scale is recomputed if it is empty. See `denormalise`."""
    (dy, dy0, lddy), (x, x0, ldx), (dx, dx0, lddx) = dy, x, dx
    for first in range(begin, end, BLOCK):
        places = min(BLOCK, end - first)
        denormalise(
            (dy, dy0 + first * lddy, lddy), (x, x0 + first * ldx, ldx), scale, first * C, scale.size > 0, C, places,
            norm, relu, (dx, dx0 + first * lddx, lddx), scratch, worker * room, room,
        )  # fmt: skip


def local_response_norm(
    on: Buffers, results: Sequence[Value], x: Value, *, size: int, k: float, alpha: float, beta: float
) -> Bind:
    """y = x · scale^(−β), scale[c] = k + α · Σ_{c' in the window of c} x[c']².

    Results are y and, if anything reads it, the scale.
    """
    y, *scales = results
    C, room, norm = x.shape[1], scratch_size(x.shape[1], size, on.dtype), Norm(size, k, alpha, beta).of(on.dtype)
    scale = Compact(scales[0]) if scales else empty(0, on.dtype)
    arguments = x, C, norm, y, scale, on.scratch(on.threads.count * room), room
    return on.launch(forward_kernel, row_count(x), *arguments, grain=BLOCK)


def local_response_norm_backward(
    on: Buffers, results: Sequence[Value], dy: Value, x: Value, *read: Value, size: int, alpha: float, beta: float,
    k: float = 0, relu: bool = False,
) -> Bind:  # fmt: skip
    """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c'].

    Takes y, which is recomputed, and the scale; or neither, but k. With `relu`, the gradient of the ReLU that made x is
    applied, too.
    """
    C, room, norm = x.shape[1], scratch_size(x.shape[1], size, on.dtype), Norm(size, k, alpha, beta).of(on.dtype)
    scale = Compact(read[1]) if read else empty(0, on.dtype)
    arguments = dy, x, scale, C, norm, relu, results[0], on.scratch(on.threads.count * room), room
    return on.launch(backward_kernel, row_count(x), *arguments, grain=BLOCK)
