"""One kernel in four versions: the gradient of local response normalisation with window five, for the page on it.

Nothing else uses them; `minialex_cuda.ops.norm_pool_words` is the fourth with pooling and ReLU. Maps are [N,C,H,W]
for the first and [N,H,W,C] for the others; scale[c] = k + α · Σ x² over the channels c − 2 … c + 2, and
dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ dy · x · scale^(−β−1) over the same channels.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from minialex_cuda.ops.words import BFLOAT16, approximate_power
from minialex_cuda.runtime.kernel import function

load, store = BFLOAT16.load, BFLOAT16.store
zero, two = np.float32(0), np.float32(2)


@function
def squares(x, j, c, C, apart):
    """Σ x² over the channels around c, the channel of element j; adjacent channels are `apart` elements apart."""
    total = zero
    for other in range(max(0, c - 2), min(C, c + 3)):
        value = x[j + (other - c) * apart]
        total += value * value
    return total


def flat(i, dy, x, dx, C, places, k, alpha, beta):
    """One thread per element, with a flat index."""
    c = (i // places) % C
    own = zero
    total = zero
    for other in range(max(0, c - 2), min(C, c + 3)):
        j = i + (other - c) * places
        scale = k + alpha * squares(x, j, other, C, places)
        passed = dy[j] * scale**-beta
        total += passed * x[j] / scale
        if other == c:
            own = passed
    dx[i] = own - two * alpha * beta * x[i] * total


def grid(tile, n, _, c, place, dy, x, dx, C, places, many, k, alpha, beta):
    """One block per group of places of an image, one thread per channel: no index is divided."""
    p = np.int32(tile * many + place)
    if p >= places:
        return
    i = np.int32((n * places + p) * C + c)
    own = zero
    total = zero
    for other in range(max(0, c - 2), min(C, c + 3)):
        j = np.int32(i + other - c)
        scale = k + alpha * squares(x, j, other, C, 1)
        passed = dy[j] * scale**-beta
        total += passed * x[j] / scale
        if other == c:
            own = passed
    dx[i] = own - two * alpha * beta * x[i] * total


def shared_first(tile, n, _, c, place, shared, dy, x, dx, C, places, many, k, alpha, beta):
    """Values that neighbours need too are computed once and put into shared memory …"""
    p = np.int32(tile * many + place)
    if p >= places:
        return zero, zero
    i = np.int32((n * places + p) * C + c)
    scale = k + alpha * squares(x, i, c, C, 1)
    own = dy[i] * scale**-beta
    shared[np.uint32(place * C + c)] = own * x[i] / scale
    return own, x[i]


def shared_second(tile, n, _, c, place, shared, kept, dy, x, dx, C, places, many, k, alpha, beta):
    """… and after the barrier each thread sums its five."""
    p = np.int32(tile * many + place)
    if p >= places:
        return
    own, value = kept
    total = zero
    for other in range(max(0, c - 2), min(C, c + 3)):
        total += shared[np.uint32(place * C + other)]
    dx[np.int32((n * places + p) * C + c)] = own - two * alpha * beta * value * total


def words_first(tile, n, _, c, place, shared, dy, x, dx, words, places, many, k, alpha, beta):
    """One thread per word of four bfloat16 channels: c counts words; the window reaches into the adjacent ones."""
    p = np.int32(tile * many + place)
    if p >= places:
        return zero, zero, zero, zero, zero, zero, zero, zero
    i = np.uint32((n * places + p) * words + c)
    x0, x1, x2, x3 = load(x, i)
    d0, d1, d2, d3 = load(dy, i)
    a = zero
    b = zero
    e = zero
    f = zero
    if c > 0:
        _, _, a, b = load(x, np.uint32(i - 1))
    if c < words - 1:
        e, f, _, _ = load(x, np.uint32(i + 1))
    middle = x0 * x0 + x1 * x1 + x2 * x2
    s0 = k + alpha * (a * a + b * b + middle)
    s1 = k + alpha * (b * b + middle + x3 * x3)
    s2 = k + alpha * (middle + x3 * x3 + e * e)
    s3 = k + alpha * (x1 * x1 + x2 * x2 + x3 * x3 + e * e + f * f)
    own0 = d0 * approximate_power(s0, beta)
    own1 = d1 * approximate_power(s1, beta)
    own2 = d2 * approximate_power(s2, beta)
    own3 = d3 * approximate_power(s3, beta)
    t = np.uint32(place * words + c)
    size = np.uint32(many * words)
    shared[t] = own0 * x0 / s0
    shared[np.uint32(t + size)] = own1 * x1 / s1
    shared[np.uint32(t + 2 * size)] = own2 * x2 / s2
    shared[np.uint32(t + 3 * size)] = own3 * x3 / s3
    return own0, own1, own2, own3, x0, x1, x2, x3


def words_second(tile, n, _, c, place, shared, kept, dy, x, dx, words, places, many, k, alpha, beta):
    """The four sums share their common terms."""
    p = np.int32(tile * many + place)
    if p >= places:
        return
    own0, own1, own2, own3, x0, x1, x2, x3 = kept
    t = np.uint32(place * words + c)
    size = np.uint32(many * words)
    t0, t1 = shared[t], shared[np.uint32(t + size)]
    t2, t3 = shared[np.uint32(t + 2 * size)], shared[np.uint32(t + 3 * size)]
    a = zero
    b = zero
    e = zero
    f = zero
    if c > 0:
        a = shared[np.uint32(t + 2 * size - 1)]
        b = shared[np.uint32(t + 3 * size - 1)]
    if c < words - 1:
        e = shared[np.uint32(t + 1)]
        f = shared[np.uint32(t + size + 1)]
    middle = t0 + t1 + t2
    factor = two * alpha * beta
    store(
        dx,
        np.uint32((n * places + p) * words + c),
        own0 - factor * x0 * (a + b + middle),
        own1 - factor * x1 * (b + middle + t3),
        own2 - factor * x2 * (middle + t3 + e),
        own3 - factor * x3 * (t1 + t2 + t3 + e + f),
    )
