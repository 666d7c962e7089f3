"""Pooling of channels-last maps, with or without local response normalisation before it, and the gradients.

A thread does four channels of a place, a word. Normalisation reaches two channels to either side, so the adjacent words
are loaded too, and the backward pass reads its neighbours' results through shared memory. Supported are windows of five
or three channels, and pooling by 3 × 3 windows at stride 2, as in the paper's section 3: for these the compiler unrolls
every loop and needs no division. In the forward pass a thread goes down a column of windows and keeps the row that two
of them share; in the backward pass it does 2 × 2 places, which four windows reach, each place always at the same
positions within them.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from minialex.backend.rules import pool_size
from minialex_cuda.ops.words import (
    BFLOAT16,
    STORAGES,
    ZEROS,
    Storage,
    approximate_power,
    image_at,
    masked,
    maximum,
    over_places,
    power,
    storage_of,
    word_at,
)
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import GridKernel, function
from minialex_cuda.runtime.place import Place

SIZE, STRIDE = 3, 2
"""The pooling windows' size and stride."""

WINDOWS = (3, 5)
"""The supported widths of normalisation windows, in channels."""

DOWN, ENOUGH = 9, 512
"""The most windows that a thread goes down, and how many blocks fill a device: if there are fewer, it does fewer."""

_ZERO = np.float32(0)
_LEAST = (np.float32(-math.inf),) * 4
_NONE, _SIX = np.uint32(0xFFFFFFFF), np.uint32(6)


# ---- normalisation --------------------------------------------------------------------------------------------


def _sums(wide: bool):
    """Make a function from a word's four numbers and two on either side to the window sum of each of the four."""
    if wide:

        def sums(a, b, c, d, e, f, g, h):
            middle = c + d + e
            return a + b + middle, b + middle + f, middle + f + g, d + e + f + g + h
    else:

        def sums(a, b, c, d, e, f, g, h):
            return b + c + d, c + d + e, d + e + f, e + f + g

    return function(sums)


def _scales(storage: Storage, wide: bool):
    """Make a function from a word's place to its four numbers and their four scales."""
    load, sums = storage.load, _sums(wide)

    def scales(x, j, c, words, k, alpha):
        own = load(x, j)
        a = _ZERO
        b = _ZERO
        g = _ZERO
        h = _ZERO
        if c > 0:
            _, _, a, b = load(x, j - np.uint64(1))
        if c < np.int32(words - 1):
            g, h, _, _ = load(x, j + np.uint64(1))
        d, e, f, i = own
        s, t, u, v = sums(a * a, b * b, d * d, e * e, f * f, i * i, g * g, h * h)
        return own, (k + alpha * s, k + alpha * t, k + alpha * u, k + alpha * v)

    return function(scales)


# ---- forward --------------------------------------------------------------------------------------------------


@function
def _larger(best, where, value, here):
    return maximum(best, value), where if value <= best else here


@function
def _largest(best, where, values, here):
    """The elementwise larger of two words and where it was: the first of equals; NaN always wins."""
    a, i = _larger(best[0], where[0], values[0], here[0])
    b, j = _larger(best[1], where[1], values[1], here[1])
    c, k = _larger(best[2], where[2], values[2], here[2])
    d, m = _larger(best[3], where[3], values[3], here[3])
    return (a, b, c, d), (i, j, k, m)


@function
def _all(number):
    return (number, number, number, number)


def _forward(storage: Storage, window: int) -> GridKernel:
    load, store = storage.load, storage.store
    scales, raised = _scales(storage, window == 5), approximate_power if storage is BFLOAT16 else power

    def normalised(x, j, c, words, k, alpha, beta):
        own, scale = scales(x, j, c, words, k, alpha)
        return (
            own[0] * raised(scale[0], beta), own[1] * raised(scale[1], beta),
            own[2] * raised(scale[2], beta), own[3] * raised(scale[3], beta),
        )  # fmt: skip

    value = function(normalised if window else lambda x, j, c, words, k, alpha, beta: load(x, j))

    def in_row(x, image, h, q, c, H, W, words, k, alpha, beta, first):
        """The largest in a row of a window, and where it was."""
        best = _LEAST
        where = _all(np.uint32(first))
        if h < H:
            for s in range(3):
                w = np.int32(2 * q + s)
                if w < W:
                    found = value(x, image + word_at(h, w, c, W, words), c, words, k, alpha, beta)
                    best, where = _largest(best, where, found, _all(np.uint32(first + s)))
        return best, where

    row = function(in_row)

    def body(tile, strip, n, c, place, x, y, where, H, W, P, Q, words, many, down, k, alpha, beta):
        """y = the largest (normalised) x of a window, where = its place within the window, in row order."""
        q = np.int32(tile * many + place)
        if q >= Q:
            return
        image = image_at(n, H, W, words)
        above, at = row(x, image, np.int32(2 * np.int32(down * strip)), q, c, H, W, words, k, alpha, beta, 0)
        for p in range(np.int32(down * strip), min(np.int32(down * strip + down), P)):
            middle, there = row(x, image, np.int32(2 * p + 1), q, c, H, W, words, k, alpha, beta, 3)
            best, found = _largest(above, at, middle, there)
            above, at = row(x, image, np.int32(2 * p + 2), q, c, H, W, words, k, alpha, beta, 6)
            best, found = _largest(best, found, above, at)
            o = image_at(n, P, Q, words) + word_at(p, q, c, Q, words)
            store(y, o, *best)
            low = np.uint32(found[0] | np.uint32(found[1] << np.uint32(8)))
            where[o] = np.uint32(
                low | np.uint32(np.uint32(found[2] | np.uint32(found[3] << np.uint32(8))) << np.uint32(16))
            )
            at = at[0] - _SIX, at[1] - _SIX, at[2] - _SIX, at[3] - _SIX

    return GridKernel(f"{f'norm{window}' if window else 'max'}_pool_{storage.name}", ("y", "where"), body)


# ---- and back -------------------------------------------------------------------------------------------------


def _gathered(storage: Storage):
    """Make a function of 2 × 2 places: for each, the sum of dy over the windows whose maximum is there."""
    load = storage.load

    @function
    def window(dy, where, image, p, q, P, Q, c, words):
        if p >= 0 and q >= 0 and p < P and q < Q:
            o = image + word_at(p, q, c, Q, words)
            return load(dy, o), where[o]
        return ZEROS, _NONE

    @function
    def plus(total, found, here):
        g, where = found
        unlike = where ^ np.uint32(here * 0x01010101)
        return (
            total[0] + (g[0] if np.uint32(unlike & np.uint32(0xFF)) == np.uint32(0) else _ZERO),
            total[1] + (g[1] if np.uint32(unlike & np.uint32(0xFF00)) == np.uint32(0) else _ZERO),
            total[2] + (g[2] if np.uint32(unlike & np.uint32(0xFF0000)) == np.uint32(0) else _ZERO),
            total[3] + (g[3] if np.uint32(unlike & np.uint32(0xFF000000)) == np.uint32(0) else _ZERO),
        )

    def gathered(dy, where, n, i, j, P, Q, c, words):
        image = image_at(n, P, Q, words)
        a = window(dy, where, image, np.int32(i - 1), np.int32(j - 1), P, Q, c, words)
        b = window(dy, where, image, np.int32(i - 1), j, P, Q, c, words)
        d = window(dy, where, image, i, np.int32(j - 1), P, Q, c, words)
        e = window(dy, where, image, i, j, P, Q, c, words)
        return (
            plus(plus(plus(plus(ZEROS, a, 8), b, 6), d, 2), e, 0),
            plus(plus(ZEROS, b, 7), e, 1),
            plus(plus(ZEROS, d, 5), e, 3),
            plus(ZEROS, e, 4),
        )

    return function(gathered)


def _max_pool2d_backward(storage: Storage) -> GridKernel:
    gathered, load, store = _gathered(storage), storage.load, storage.store

    @function
    def put(x, dx, image, h, w, c, H, W, words, d, rectify):
        if h < H and w < W:
            j = image + word_at(h, w, c, W, words)
            if rectify:
                d = masked(d, load(x, j))
            store(dx, j, *d)

    def body(tile, i, n, c, place, dy, x, where, dx, H, W, P, Q, words, many, rectify):
        """dx = Σ dy over the windows whose maximum is here; with `rectify`, 0 where x is not positive."""
        v = np.int32(tile * many + place)
        d = gathered(dy, where, n, i, v, P, Q, c, words)
        image = image_at(n, H, W, words)
        put(x, dx, image, np.int32(2 * i), np.int32(2 * v), c, H, W, words, d[0], rectify)
        put(x, dx, image, np.int32(2 * i), np.int32(2 * v + 1), c, H, W, words, d[1], rectify)
        put(x, dx, image, np.int32(2 * i + 1), np.int32(2 * v), c, H, W, words, d[2], rectify)
        put(x, dx, image, np.int32(2 * i + 1), np.int32(2 * v + 1), c, H, W, words, d[3], rectify)

    return GridKernel(f"max_pool_backward_{storage.name}", ("dx",), body)


def _backward(storage: Storage, wide: bool) -> GridKernel:
    scales, sums, gathered, store = _scales(storage, wide), _sums(wide), _gathered(storage), storage.store

    if storage is BFLOAT16:

        def raise_(scale, beta):
            return approximate_power(scale, beta), approximate_power(scale, beta + np.float32(1))
    else:

        def raise_(scale, beta):
            raised = power(scale, beta)
            return raised, raised / scale

    raised = function(raise_)

    @function
    def begun(shared, t, size, x, image, h, w, c, H, W, words, d, k, alpha, beta):
        """Return d · scale^(−β) and x of one place; share d · x · scale^(−β) / scale."""
        if h >= H or w >= W:
            return ZEROS, ZEROS
        own, scale = scales(x, image + word_at(h, w, c, W, words), c, words, k, alpha)
        a, i = raised(scale[0], beta)
        b, j = raised(scale[1], beta)
        e, m = raised(scale[2], beta)
        f, o = raised(scale[3], beta)
        shared[t] = d[0] * own[0] * i
        shared[np.uint32(t + size)] = d[1] * own[1] * j
        shared[np.uint32(t + 2 * size)] = d[2] * own[2] * m
        shared[np.uint32(t + 3 * size)] = d[3] * own[3] * o
        return (d[0] * a, d[1] * b, d[2] * e, d[3] * f), own

    @function
    def ended(shared, t, size, kept, dx, image, h, w, c, H, W, words, factor, rectify):
        if h >= H or w >= W:
            return
        own, x = kept
        a = _ZERO
        b = _ZERO
        g = _ZERO
        e = _ZERO
        if c > 0:
            a = shared[np.uint32(t + 2 * size - 1)]
            b = shared[np.uint32(t + 3 * size - 1)]
        if c < np.int32(words - 1):
            g = shared[np.uint32(t + 1)]
            e = shared[np.uint32(t + size + 1)]
        r = sums(
            a, b, shared[t], shared[np.uint32(t + size)], shared[np.uint32(t + 2 * size)],
            shared[np.uint32(t + 3 * size)], g, e,
        )  # fmt: skip
        found = (
            own[0] - factor * x[0] * r[0], own[1] - factor * x[1] * r[1],
            own[2] - factor * x[2] * r[2], own[3] - factor * x[3] * r[3],
        )  # fmt: skip
        if rectify:
            found = masked(found, x)
        store(dx, image + word_at(h, w, c, W, words), *found)

    def first(
        tile, i, n, c, place, shared, dy, x, where, dx, H, W, P, Q, words, many, k, alpha, beta, rectify
    ):  # fmt: skip
        """dx of pooling, then of normalisation, then of the ReLU that made x; scales are recomputed."""
        v = np.int32(tile * many + place)
        d = gathered(dy, where, n, i, v, P, Q, c, words)
        image = image_at(n, H, W, words)
        h, w, t, size = np.int32(2 * i), np.int32(2 * v), np.uint32(place * words + c), np.uint32(many * words)
        below, right = np.int32(h + 1), np.int32(w + 1)
        return (
            begun(shared, t, size, x, image, h, w, c, H, W, words, d[0], k, alpha, beta),
            begun(shared, np.uint32(t + 4 * size), size, x, image, h, right, c, H, W, words, d[1], k, alpha, beta),
            begun(shared, np.uint32(t + 8 * size), size, x, image, below, w, c, H, W, words, d[2], k, alpha, beta),
            begun(shared, np.uint32(t + 12 * size), size, x, image, below, right, c, H, W, words, d[3], k, alpha, beta),
        )

    def second(
        tile, i, n, c, place, shared, kept, dy, x, where, dx, H, W, P, Q, words, many, k, alpha, beta, rectify
    ):  # fmt: skip
        v = np.int32(tile * many + place)
        image, factor = image_at(n, H, W, words), np.float32(2) * alpha * beta
        h, w, t, size = np.int32(2 * i), np.int32(2 * v), np.uint32(place * words + c), np.uint32(many * words)
        below, right = np.int32(h + 1), np.int32(w + 1)
        ended(shared, t, size, kept[0], dx, image, h, w, c, H, W, words, factor, rectify)
        ended(shared, np.uint32(t + 4 * size), size, kept[1], dx, image, h, right, c, H, W, words, factor, rectify)
        ended(shared, np.uint32(t + 8 * size), size, kept[2], dx, image, below, w, c, H, W, words, factor, rectify)
        ended(shared, np.uint32(t + 12 * size), size, kept[3], dx, image, below, right, c, H, W, words, factor, rectify)

    return GridKernel(f"norm{5 if wide else 3}_pool_backward_{storage.name}", ("dx",), first, second)


FORWARD = {(storage.name, window): _forward(storage, window) for storage in STORAGES for window in (0, *WINDOWS)}
BACKWARD = {(storage.name, window): _backward(storage, window == 5) for storage in STORAGES for window in WINDOWS}
MAX_POOL2D_BACKWARD = {storage.name: _max_pool2d_backward(storage) for storage in STORAGES}


def norm_pool(
    on: Place, x: CudaArray, *, size: int, stride: int, ceil: bool, window: int = 0, k: float = 0, alpha: float = 0,
    beta: float = 0,
) -> tuple[CudaArray, CudaArray]:  # fmt: skip
    """max_pool2d(local_response_norm(x)), and where in each window its maximum was; x is [N,H,W,C].

    With `window` = 0 there is no normalisation, only pooling.
    """
    (N, H, W, C), storage = x.shape, storage_of(x)
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y, where = on.empty((N, P, Q, C), x.dtype), on.empty((N, P, Q, C), np.uint8)
    down = max(2, min(DOWN, over_places(N, P, Q, C).blocks[0] * N * P // ENOUGH))
    grid = over_places(N, -(-P // down), Q, C)
    on.launch(
        FORWARD[storage.name, window], grid, storage.words(on, x), storage.words(on, y), in_words(on, where),
        H, W, P, Q, C // 4, grid.threads[1], down, *map(np.float32, (k, alpha, beta)),
    )  # fmt: skip
    return y, where


def norm_pool_backward(
    on: Place, dy: CudaArray, x: CudaArray, where: CudaArray, *,
    window: int, k: float, alpha: float, beta: float, size: int, stride: int, rectify: bool,
) -> CudaArray:  # fmt: skip
    """The gradient of x in `norm_pool`; with `rectify`, that of the input of the ReLU that made x."""
    return _back(
        on, BACKWARD[storage_of(x).name, window], 16, dy, x, where, *map(np.float32, (k, alpha, beta)), rectify
    )


def max_pool2d_backward(on: Place, dy: CudaArray, x: CudaArray, where: CudaArray, *, rectify: bool) -> CudaArray:
    """Each window passes its dy to its first maximum; with `rectify`, then through the ReLU that made x."""
    return _back(on, MAX_POOL2D_BACKWARD[storage_of(x).name], 0, dy, x, where, rectify)


def _back(
    on: Place, kernel: GridKernel, shared: int, dy: CudaArray, x: CudaArray, where: CudaArray, *numbers: object
) -> CudaArray:
    (N, H, W, C), (P, Q), storage = x.shape, dy.shape[1:3], storage_of(x)
    dx = on.empty(x.shape, x.dtype)
    grid = over_places(N, -(-H // 2), -(-W // 2), C, shared=shared)
    on.launch(
        kernel, grid, storage.words(on, dy), storage.words(on, x), in_words(on, where), storage.words(on, dx),
        H, W, P, Q, C // 4, grid.threads[1], *numbers,
    )  # fmt: skip
    return dx


def in_words(on: Place, where: CudaArray) -> CudaArray:
    """View positions within windows as words of four."""
    return on.view(where, np.uint32, (where.size // 4,))
