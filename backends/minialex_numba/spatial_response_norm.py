"""Normalisation over neighbouring places of one channel, channels last."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats, channels_first, channels_last, empty
from minialex_numba.local_response_norm import inverse_power
from minialex_numba.pool import Pool


@kernel
def forward_kernel(worker, begin, end, x, x0, ldx, C, H, W, size, k, alpha, beta, y, y0, ldy, scale, scratch):
    """Items are rows of images; scratch has C numbers for each thread."""
    before = size // 2
    s = worker * C
    for item in range(begin, end):
        n, i = divmod(item, H)
        rows = range(max(0, i - before), min(H, i - before + size))
        for j in range(W):
            for c in range(C):
                scratch[s + c] = 0
            for row in rows:
                for column in range(max(0, j - before), min(W, j - before + size)):
                    a = x0 + ((n * H + row) * W + column) * ldx
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
def share_kernel(worker, begin, end, dy, dy0, lddy, x, x0, ldx, scale, C, beta, share):
    """share = dy · y / scale, for y = x · scale^(−β); items are places."""
    for item in range(begin, end):
        a, b, d = x0 + item * ldx, dy0 + item * lddy, item * C
        inverse_power(scale, d, share, d, C, beta, False)
        for c in range(C):
            share[d + c] = dy[b + c] * (x[a + c] * share[d + c]) / scale[d + c]


@kernel
def backward_kernel(
    worker, begin, end, dy, dy0, lddy, x, x0, ldx, scale, share, C, H, W, size, alpha, beta, dx, dx0, lddx,
    scratch,
):  # fmt: skip
    """Items are rows of images; scratch has 2C numbers for each thread."""
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
                for column in range(max(0, j - after), min(W, j - after + size)):
                    a = ((n * H + row) * W + column) * C
                    for c in range(C):
                        scratch[s + c] += share[a + c]
            place = item * W + j
            a, b, e = x0 + place * ldx, dy0 + place * lddy, dx0 + place * lddx
            inverse_power(scale, place * C, scratch, t, C, beta, False)
            for c in range(C):
                dx[e + c] = dy[b + c] * scratch[t + c] + factor * x[a + c] * scratch[s + c]


def spatial_response_norm(
    pool: Pool, x: Floats, *, size: int, k: float, alpha: float, beta: float
) -> tuple[Floats, Floats]:
    """y = x · scale^(−β), scale[i,j] = k + α · Σ_{the window of i,j} x²; returns y and scale."""
    N, C, H, W = x.shape
    y, scale, scratch = empty(x.size, x.dtype), empty(x.size, x.dtype), empty(pool.threads * C, x.dtype)
    numbers = tuple(x.dtype.type(value) for value in (k, alpha, beta))
    last = channels_last(pool, x)
    pool.run(forward_kernel, N * H, last, 0, C, C, H, W, size, *numbers, y, 0, C, scale, scratch)
    return channels_first(pool, y, x.shape), channels_first(pool, scale, x.shape)


def spatial_response_norm_backward(
    pool: Pool, dy: Floats, x: Floats, y: Floats, scale: Floats, *, size: int, alpha: float, beta: float
) -> Floats:
    """dx = dy · scale^(−β) − 2αβ · x · Σ_{places whose window holds this one} dy · y / scale."""
    del y  # x · scale^(−β), which is computed anew
    N, C, H, W = x.shape
    share, dx, scratch = empty(x.size, x.dtype), empty(x.size, x.dtype), empty(2 * pool.threads * C, x.dtype)
    numbers = x.dtype.type(alpha), x.dtype.type(beta)
    arrays = channels_last(pool, dy), 0, C, channels_last(pool, x), 0, C, channels_last(pool, scale)
    pool.run(share_kernel, N * H * W, *arrays, C, numbers[1], share, grain=64)
    pool.run(backward_kernel, N * H, *arrays, share, C, H, W, size, *numbers, dx, 0, C, scratch)
    return channels_first(pool, dx, x.shape)
