"""Normalisation over neighbouring positions of one channel, channels last."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence

from minialex.backend.program import Value
from minialex_numba.ops.local_response_norm import Norm, inverse_power
from minialex_numba.runtime.buffers import Bind, Buffers, Compact, in_order, row_count
from minialex_numba.runtime.jit import kernel


@kernel
def forward_kernel(worker, begin, end, x, shape, norm, y, scale, scratch):
    """Items are rows of images of `shape` = (C, H, W); scratch has C numbers per thread."""
    (x, x0, ldx), (y, y0, ldy), (C, H, W), (size, k, alpha, beta) = x, y, shape, norm
    before = size // 2
    s = worker * C
    for item in range(begin, end):
        n, i = divmod(item, H)
        rows = range(max(0, i - before), min(H, i - before + size))
        for j in range(W):
            for c in range(C):
                scratch[s + c] = 0
            for row in rows:
                for near in range(max(0, j - before), min(W, j - before + size)):
                    a = x0 + ((n * H + row) * W + near) * ldx
                    for c in range(C):
                        scratch[s + c] += x[a + c] * x[a + c]
            d = (item * W + j) * C
            for c in range(C):
                scale[d + c] = k + alpha * scratch[s + c]
            inverse_power(scale, d, scratch, s, C, beta, False)
            a, b = x0 + (item * W + j) * ldx, y0 + (item * W + j) * ldy
            for c in range(C):
                y[b + c] = x[a + c] * scratch[s + c]


@kernel
def share_kernel(worker, begin, end, dy, x, scale, C, beta, share):
    """share = dy · y / scale, for y = x · scale^(−β); items are places."""
    (dy, dy0, lddy), (x, x0, ldx) = dy, x
    for item in range(begin, end):
        a, b, d = x0 + item * ldx, dy0 + item * lddy, item * C
        inverse_power(scale, d, share, d, C, beta, False)
        for c in range(C):
            share[d + c] = dy[b + c] * (x[a + c] * share[d + c]) / scale[d + c]


@kernel
def backward_kernel(worker, begin, end, dy, x, scale, share, shape, norm, dx, scratch):
    """Items are rows of images of `shape` = (C, H, W); scratch has 2C numbers per thread."""
    (dy, dy0, lddy), (x, x0, ldx), (dx, dx0, lddx), (C, H, W), (size, _, alpha, beta) = dy, x, dx, shape, norm
    after = size - 1 - size // 2
    s = 2 * worker * C
    t = s + C
    factor = -(x.dtype.type(2) * alpha * beta)
    for item in range(begin, end):
        n, i = divmod(item, H)
        for j in range(W):
            for c in range(C):
                scratch[s + c] = 0
            for row in range(max(0, i - after), min(H, i - after + size)):
                for near in range(max(0, j - after), min(W, j - after + size)):
                    a = ((n * H + row) * W + near) * C
                    for c in range(C):
                        scratch[s + c] += share[a + c]
            place = item * W + j
            a, b, e = x0 + place * ldx, dy0 + place * lddy, dx0 + place * lddx
            inverse_power(scale, place * C, scratch, t, C, beta, False)
            for c in range(C):
                dx[e + c] = dy[b + c] * scratch[t + c] + factor * x[a + c] * scratch[s + c]


def spatial_response_norm(
    on: Buffers, results: Sequence[Value], x: Value, *, size: int, k: float, alpha: float, beta: float
) -> Bind:
    """y = x · scale^(−β), scale[i,j] = k + α · Σ_{the window of i,j} x²; results are y and scale."""
    y, scale = results
    N, *shape = x.shape
    norm, scratch = Norm(size, k, alpha, beta).of(on.dtype), on.scratch(on.threads.count * shape[0])
    return on.launch(forward_kernel, N * shape[1], x, tuple(shape), norm, y, Compact(scale), scratch)


def spatial_response_norm_backward(
    on: Buffers, results: Sequence[Value], dy: Value, x: Value, y: Value, scale: Value, *, size: int, alpha: float,
    beta: float,
) -> Bind:  # fmt: skip
    """dx = dy · scale^(−β) − 2αβ · x · Σ_{places whose window holds this one} dy · y / scale."""
    del y  # x · scale^(−β), which is recomputed
    N, *shape = x.shape
    norm, scales = Norm(size, 0, alpha, beta).of(on.dtype), Compact(scale)
    share, scratch = on.scratch(math.prod(x.shape)), on.scratch(2 * on.threads.count * shape[0])
    first = on.launch(share_kernel, row_count(x), dy, x, scales, shape[0], norm.beta, share, grain=64)
    second = on.launch(backward_kernel, N * shape[1], dy, x, scales, share, tuple(shape), norm, results[0], scratch)
    return lambda: in_order(first(), second())
