"""Local response normalisation fused with max pooling, one pass over memory each way: an operation of compiled steps.

In the forward pass, an image's normalised rows stay in scratch memory for as long as a window needs them. In the
backward pass, a row's pooling gradient goes through the normalisation and the ReLU before it while still in the cache.

The channels of a place lie in vectors; a window's neighbours are lanes of these and of adjacent vectors. If there are
few channels, a vector holds several places side by side.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence

from minialex.backend.program import Value
from minialex_numba.ops.local_response_norm import Norm
from minialex_numba.ops.max_pool2d import Windows, pool_row, windows_of, winner_dtype
from minialex_numba.runtime.buffers import Bind, Buffers, Compact
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.layout import empty
from minialex_numba.runtime.tiles import lanes as lanes_of
from minialex_numba.runtime.tiles import up
from minialex_numba.runtime.vector import (
    WHOLE,
    lane_numbers,
    lanes,
    load,
    load_counts,
    load_lanes,
    multiply_add,
    near,
    powers,
    spread,
    store,
    store_lanes,
    where_more,
    where_same,
)


def fits(norm: Norm) -> bool:
    """Whether these kernels support a normalisation: only the paper's window and power."""
    return bool(norm.size == 5 and norm.beta == 0.75 and norm.k >= 1e-30)


@part
def beside(x, C):
    """How many lanes a place of C channels takes, and how many places a vector holds side by side."""
    room = lanes(x)
    while room // 2 >= C:
        room //= 2
    return room, lanes(x) // room


@part
def edges(x, room, places):
    """Each lane's distance from the first and from the last lane of its place; if one place fills the whole vector (or
    more), distances beyond any window."""
    if places == 1:
        return spread(x, WHOLE), spread(x, WHOLE)
    first = lane_numbers(x)
    for _ in range(1, places):
        first = where_more(first, spread(x, room - 0.5), first - spread(x, room), first)
    return first, spread(x, room - 1) - first


@part
def load_places(x, a, ldx, n, room, places):
    """Load places side by side, `room` lanes each, the first n lanes of them."""
    v = load(x, a, n)
    for g in range(1, places):
        v = load_lanes(x, a + g * (ldx - room), g * room, g * room + n, v)
    return v


@part
def store_places(y, b, v, ldy, n, room, places):
    """The inverse of `load_places`."""
    store(y, b, v, n)
    for g in range(1, places):
        store_lanes(y, b + g * (ldy - room), g * room, g * room + n, v)


@part
def window_sum(x, before, here, after, first, last):
    """The sum of five neighbours, added from first to last; `first` and `last` come from `edges`."""
    zero, next_but_one, next_one = spread(x, 0), spread(x, 1.5), spread(x, 0.5)
    return (
        where_more(first, next_but_one, near(before, here, after, -2), zero)
        + where_more(first, next_one, near(before, here, after, -1), zero)
        + here
        + where_more(last, next_one, near(before, here, after, 1), zero)
        + where_more(last, next_but_one, near(before, here, after, 2), zero)
    )


@part
def normalise(x, C, places, norm, y):
    """y = x · scale^(−3/4) for a row of places."""
    (x, x0, ldx), (y, y0, ldy), (_, k, alpha, _) = x, y, norm
    zero, constant, factor = spread(x, 0), spread(x, k), spread(x, alpha)
    step = lanes(x)
    room, together = beside(x, C)
    first, last = edges(x, room, together)
    for p in range(0, places, together):
        count = min(together, places - p)
        a, b = x0 + p * ldx, y0 + p * ldy
        value = load_places(x, a, ldx, C, room, count)
        before, here = zero, value * value
        for c in range(0, C, step):
            ahead = load(x, a + c + step, C - c - step)
            after = ahead * ahead
            sums = window_sum(x, before, here, after, first, last)
            power, _ = powers(multiply_add(factor, sums, constant))
            store_places(y, b + c, value * power, ldy, C - c, room, count)
            before, here, value = here, after, ahead


@part
def denormalise(dy, x, C, places, norm, relu, dx):
    """The gradient for a row of places; with `relu` it is 0 where x is not positive.

    The sum over a window needs the terms of the next vector of channels, and these the squares of the next but one.
    """
    (dy, dy0, lddy), (x, x0, ldx), (dx, dx0, lddx), (_, k, alpha, beta) = dy, x, dx, norm
    zero, constant, factor = spread(x, 0), spread(x, k), spread(x, alpha)
    back = spread(x, -(x.dtype.type(2) * alpha * beta))
    step = lanes(x)
    room, together = beside(x, C)
    first, last = edges(x, room, together)
    for p in range(0, places, together):
        count = min(together, places - p)
        a, b, e = x0 + p * ldx, dy0 + p * lddy, dx0 + p * lddx
        value = load_places(x, a, ldx, C, room, count)
        before, here = zero, value * value
        own_value = own_slope = share_before = share = zero
        for c in range(0, C + step, step):
            slope = share_after = zero
            if c < C:
                ahead = load(x, a + c + step, C - c - step)
                after = ahead * ahead
                sums = window_sum(x, before, here, after, first, last)
                power, inverse = powers(multiply_add(factor, sums, constant))
                slope = load_places(dy, b + c, lddy, C - c, room, count) * power
                share_after = slope * value * inverse
                before, here = here, after
            else:
                ahead = zero
            if c > 0:
                shares = window_sum(x, share_before, share, share_after, first, last)
                total = multiply_add(back * own_value, shares, own_slope)
                if relu:
                    total = where_more(own_value, zero, total, zero)
                store_places(dx, e + c - step, total, lddx, C - c + step, room, count)
            share_before, share = share, share_after
            own_value, own_slope, value = value, slope, ahead


@part
def spread_slopes(dy, winner, w0, i, windows, out, o0, pitch):
    """The gradient of row i of an image, `pitch` numbers per place: every window adds its dy where its winner is."""
    (dy, dy0, lddy), (C, _, W, size, stride, P, Q, _) = dy, windows
    zero, one = spread(dy, 0), spread(dy, 1)
    for j in range(0, W * pitch, lanes(dy)):
        store(out, o0 + j, zero, WHOLE)
    for p in range(max(0, (i - size) // stride + 1), min(P - 1, i // stride) + 1):
        row = spread(dy, (i - p * stride) * size)
        for q in range(Q):
            window = p * Q + q
            across = min(size, W - q * stride)
            for c in range(0, C, lanes(dy)):
                slope = load(dy, dy0 + window * lddy + c, C - c)
                ahead = load_counts(winner, w0 + window * C + c, slope, C - c) - row  # places to the winner
                o = o0 + q * stride * pitch + c
                for _ in range(across):
                    store(out, o, load(out, o, WHOLE) + where_same(ahead, zero, slope, zero), WHOLE)
                    ahead = ahead - one
                    o += pitch


@kernel
def forward_kernel(worker, begin, end, parts, x, windows, norm, y, winner, scratch, room):
    """Items are (image, part of its rows of windows); scratch has the rows of one window per thread."""
    (x, x0, ldx), (y, y0, ldy), g = x, y, Windows(*windows)
    C, H, W = g.C, g.H, g.W
    rows = worker * room
    for item in range(begin, end):
        n, part = divmod(item, parts)
        done = 0
        for p in range(part * g.P // parts, (part + 1) * g.P // parts):
            top = p * g.stride
            bottom = min(top + g.size, H)
            for i in range(max(top, done), bottom):
                source, target = (x, x0 + (n * H + i) * W * ldx, ldx), (scratch, rows + (i % g.size) * W * C, C)
                normalise(source, C, W, norm, target)
            done = bottom
            window = (n * g.P + p) * g.Q
            pool_row(
                (scratch, rows, C), g.size, top, bottom - top, windows, (y, y0 + window * ldy, ldy), winner, window * C
            )


@kernel
def backward_kernel(worker, begin, end, dy, winner, x, relu, windows, norm, dx, scratch, pitch):
    """Items are rows of x; each window's winner gets its gradient. Scratch has a row per thread."""
    (dy, dy0, lddy), (x, x0, ldx), (dx, dx0, lddx), g = dy, x, dx, Windows(*windows)
    row = worker * g.W * pitch
    for item in range(begin, end):
        n, i = divmod(item, g.H)
        window, place = n * g.P * g.Q, item * g.W
        spread_slopes((dy, dy0 + window * lddy, lddy), winner, window * g.C, i, windows, scratch, row, pitch)
        denormalise(
            (scratch, row, pitch), (x, x0 + place * ldx, ldx), g.C, g.W, norm, relu, (dx, dx0 + place * lddx, lddx)
        )


def normalised_pool(
    on: Buffers, results: Sequence[Value | None], x: Value, *, norm: Norm, size: int, stride: int, ceil: bool
) -> Bind:
    """Results are y and, if the backward pass reads them, the winners."""
    del ceil
    y, *winners = results
    assert y is not None
    winner = Compact(winners[0]) if winners and winners[0] else empty(0, winner_dtype(size))
    (N, C, _, W), windows = x.shape, windows_of(x.shape, y.shape, size, stride)
    room = up(size * W * C, 16)
    parts = max(1, min(windows.P, -(-4 * on.threads.count // N)))
    scratch = on.scratch(on.threads.count * room)
    return on.launch(forward_kernel, N * parts, parts, x, windows, norm.of(on.dtype), y, winner, scratch, room)


def normalised_pool_backward(
    on: Buffers, results: Sequence[Value], dy: Value, winner: Value, x: Value, *, norm: Norm, size: int, stride: int,
    relu: bool = False,
) -> Bind:  # fmt: skip
    """With `relu`, the gradient of the ReLU that made x is applied, too."""
    N, C, H, W = x.shape
    pitch = up(C, lanes_of(on.dtype))
    windows, scratch = windows_of(x.shape, dy.shape, size, stride), on.scratch(on.threads.count * W * pitch)
    arguments = dy, Compact(winner), x, relu, windows, norm.of(on.dtype), results[0], scratch, pitch
    return on.launch(backward_kernel, N * H, *arguments)
