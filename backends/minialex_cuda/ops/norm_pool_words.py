"""Local response normalisation with the pooling after it, and their gradient, on maps with the channels last.

A thread has four channels of one place, a word. Normalisation looks two channels to both sides, so the words beside it
are loaded too, and the way back asks the threads beside it for what they computed, through shared memory. Windows of
five or three channels, pooling by 3 × 3 windows two apart, as in the paper's section 3: for these the compiler knows
every loop, and divides by nothing.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from minialex.backend.rules import pool_size
from minialex_cuda.ops.words import (
    BFLOAT16,
    STORAGES,
    Storage,
    approximate_power,
    image_at,
    over_places,
    power,
    storage_of,
    word_at,
)
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import GridKernel, function
from minialex_cuda.runtime.place import Place

SIZE, STRIDE = 3, 2
"""Of pooling windows."""

WINDOWS = (3, 5)
"""Of normalisation: how many channels."""

_ZERO = np.float32(0)
_BYTE = np.uint32(255)
_8, _24 = np.uint32(8), np.uint32(24)


def _sums(wide: bool):
    """A function of a word's four numbers and the two on either side: the sum over the window of each of the four."""
    if wide:

        def sums(a, b, c, d, e, f, g, h):
            middle = c + d + e
            return a + b + middle, b + middle + f, middle + f + g, d + e + f + g + h
    else:

        def sums(a, b, c, d, e, f, g, h):
            return b + c + d, c + d + e, d + e + f, e + f + g

    return function(sums)


def _scales(storage: Storage, wide: bool):
    """A function of a word's place: its four numbers, and their four scales."""
    load, sums = storage.load, _sums(wide)

    def scales(x, j, first, last, k, alpha):
        c, d, e, f = load(x, j)
        a = _ZERO
        b = _ZERO
        g = _ZERO
        h = _ZERO
        if not first:
            _, _, a, b = load(x, j - np.uint64(1))
        if not last:
            g, h, _, _ = load(x, j + np.uint64(1))
        s, t, u, v = sums(a * a, b * b, c * c, d * d, e * e, f * f, g * g, h * h)
        return c, d, e, f, k + alpha * s, k + alpha * t, k + alpha * u, k + alpha * v

    return function(scales)


def _forward(storage: Storage, wide: bool) -> GridKernel:
    scales, store = _scales(storage, wide), storage.store
    raised = approximate_power if storage is BFLOAT16 else power

    def body(tile, p, n, c, place, x, y, where, H, W, P, Q, words, many, k, alpha, beta):
        """y = the largest normalised x of a window, where = its place within the window, in row order."""
        q = np.int32(tile * many + place)
        if q >= Q:
            return
        image = image_at(n, H, W, words)
        best0 = np.float32(-math.inf)
        best1 = best0
        best2 = best0
        best3 = best0
        where0 = np.uint32(0)
        where1 = where0
        where2 = where0
        where3 = where0
        for r in range(3):
            h = np.int32(2 * p + r)
            for s in range(3):
                w = np.int32(2 * q + s)
                if h < H and w < W:
                    j = image + word_at(h, w, c, W, words)
                    x0, x1, x2, x3, s0, s1, s2, s3 = scales(x, j, c == 0, c == words - 1, k, alpha)
                    y0 = x0 * raised(s0, beta)
                    y1 = x1 * raised(s1, beta)
                    y2 = x2 * raised(s2, beta)
                    y3 = x3 * raised(s3, beta)
                    here = np.uint32(3 * r + s)
                    if y0 > best0 or y0 != y0:
                        best0 = y0
                        where0 = here
                    if y1 > best1 or y1 != y1:
                        best1 = y1
                        where1 = here
                    if y2 > best2 or y2 != y2:
                        best2 = y2
                        where2 = here
                    if y3 > best3 or y3 != y3:
                        best3 = y3
                        where3 = here
        o = image_at(n, P, Q, words) + word_at(p, q, c, Q, words)
        store(y, o, best0, best1, best2, best3)
        low = np.uint32(where0 | np.uint32(where1 << _8))
        where[o] = np.uint32(low | np.uint32(np.uint32(where2 | np.uint32(where3 << _8)) << np.uint32(16)))

    return GridKernel(f"norm{5 if wide else 3}_pool_{storage.name}", ("y", "where"), body)


def gathered_by(storage: Storage):
    """A function of a place in a map: the sums of dy over the windows whose maximum is there, in four channels."""
    load = storage.load

    def gathered(dy, where, image, h, w, P, Q, words, c):
        d0 = _ZERO
        d1 = _ZERO
        d2 = _ZERO
        d3 = _ZERO
        for below in range(2):
            p = np.int32((h >> 1) - 1 + below)
            r = np.int32(h - 2 * p)
            for right in range(2):
                q = np.int32((w >> 1) - 1 + right)
                s = np.int32(w - 2 * q)
                if p >= 0 and q >= 0 and p < P and q < Q and r < 3 and s < 3:
                    o = image + word_at(p, q, c, Q, words)
                    here = np.uint32(3 * r + s)
                    at = where[o]
                    g0, g1, g2, g3 = load(dy, o)
                    if np.uint32(at & _BYTE) == here:
                        d0 += g0
                    if np.uint32((at >> _8) & _BYTE) == here:
                        d1 += g1
                    if np.uint32((at >> np.uint32(16)) & _BYTE) == here:
                        d2 += g2
                    if np.uint32(at >> _24) == here:
                        d3 += g3
        return d0, d1, d2, d3

    return function(gathered)


def _backward(storage: Storage, wide: bool) -> GridKernel:
    scales, sums, gathered, store = _scales(storage, wide), _sums(wide), gathered_by(storage), storage.store
    raised = approximate_power if storage is BFLOAT16 else power

    def first(
        tile, h, n, c, place, shared, dy, x, where, dx, H, W, P, Q, words, many, k, alpha, beta, rectify
    ):  # fmt: skip
        """dx of pooling, then of normalisation, then of the ReLU that made x; scales are computed again."""
        w = np.int32(tile * many + place)
        if w >= W:
            return _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO, _ZERO
        pooled = image_at(n, P, Q, words)
        d0, d1, d2, d3 = gathered(dy, where, pooled, h, w, P, Q, words, c)
        j = image_at(n, H, W, words) + word_at(h, w, c, W, words)
        x0, x1, x2, x3, s0, s1, s2, s3 = scales(x, j, c == 0, c == words - 1, k, alpha)
        own0 = d0 * raised(s0, beta)
        own1 = d1 * raised(s1, beta)
        own2 = d2 * raised(s2, beta)
        own3 = d3 * raised(s3, beta)
        t = np.uint32(place * words + c)
        size = np.uint32(many * words)
        shared[t] = own0 * x0 / s0
        shared[np.uint32(t + size)] = own1 * x1 / s1
        shared[np.uint32(t + 2 * size)] = own2 * x2 / s2
        shared[np.uint32(t + 3 * size)] = own3 * x3 / s3
        return own0, own1, own2, own3, x0, x1, x2, x3

    def second(
        tile, h, n, c, place, shared, kept, dy, x, where, dx, H, W, P, Q, words, many, k, alpha, beta, rectify
    ):  # fmt: skip
        w = np.int32(tile * many + place)
        if w >= W:
            return
        own0, own1, own2, own3, x0, x1, x2, x3 = kept
        t = np.uint32(place * words + c)
        size = np.uint32(many * words)
        a = _ZERO
        b = _ZERO
        g = _ZERO
        e = _ZERO
        if c > 0:
            a = shared[np.uint32(t + 2 * size - 1)]
            b = shared[np.uint32(t + 3 * size - 1)]
        if c < words - 1:
            g = shared[np.uint32(t + 1)]
            e = shared[np.uint32(t + size + 1)]
        r0, r1, r2, r3 = sums(
            a, b, shared[t], shared[np.uint32(t + size)], shared[np.uint32(t + 2 * size)],
            shared[np.uint32(t + 3 * size)], g, e,
        )  # fmt: skip
        factor = np.float32(2) * alpha * beta
        y0 = own0 - factor * x0 * r0
        y1 = own1 - factor * x1 * r1
        y2 = own2 - factor * x2 * r2
        y3 = own3 - factor * x3 * r3
        if rectify:
            y0 = y0 if x0 > _ZERO else _ZERO
            y1 = y1 if x1 > _ZERO else _ZERO
            y2 = y2 if x2 > _ZERO else _ZERO
            y3 = y3 if x3 > _ZERO else _ZERO
        j = image_at(n, H, W, words) + word_at(h, w, c, W, words)
        store(dx, j, y0, y1, y2, y3)

    return GridKernel(f"norm{5 if wide else 3}_pool_backward_{storage.name}", ("dx",), first, second)


FORWARD = {(storage.name, window): _forward(storage, window == 5) for storage in STORAGES for window in WINDOWS}
BACKWARD = {(storage.name, window): _backward(storage, window == 5) for storage in STORAGES for window in WINDOWS}


def norm_pool(
    on: Place, x: CudaArray, *, window: int, k: float, alpha: float, beta: float, size: int, stride: int, ceil: bool
) -> tuple[CudaArray, CudaArray]:
    """max_pool2d(local_response_norm(x)), and where in each window its maximum was; x is [N,H,W,C]."""
    (N, H, W, C), storage = x.shape, storage_of(x)
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y, where = on.empty((N, P, Q, C), x.dtype), on.empty((N, P, Q, C), np.uint8)
    grid = over_places(N, P, Q, C)
    on.launch(
        FORWARD[storage.name, window], grid, storage.words(on, x), storage.words(on, y), in_words(on, where),
        H, W, P, Q, C // 4, grid.threads[1], *map(np.float32, (k, alpha, beta)),
    )  # fmt: skip
    return y, where


def norm_pool_backward(
    on: Place, dy: CudaArray, x: CudaArray, where: CudaArray, *,
    window: int, k: float, alpha: float, beta: float, size: int, stride: int, rectify: bool,
) -> CudaArray:  # fmt: skip
    """The gradient of x in `norm_pool`, and with `rectify` that of the ReLU's argument where x is its result."""
    (N, H, W, C), (P, Q), storage = x.shape, dy.shape[1:3], storage_of(x)
    dx = on.empty(x.shape, x.dtype)
    grid = over_places(N, H, W, C, shared=4)
    on.launch(
        BACKWARD[storage.name, window], grid, storage.words(on, dy), storage.words(on, x), in_words(on, where),
        storage.words(on, dx), H, W, P, Q, C // 4, grid.threads[1], *map(np.float32, (k, alpha, beta)), rectify,
    )  # fmt: skip
    return dx


def in_words(on: Place, where: CudaArray) -> CudaArray:
    """Four places within windows in a word."""
    return on.view(where, np.uint32, (where.size // 4,))
