"""Maps with the channels last, [N,H,W,C], in words of four channels: brought there and back, and what is simple there.

For each form of storage (see `words`) the same bodies make two kernels.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minialex.backend.rules import pool_size
from minialex_cuda.ops.norm_pool_words import gathered_by, in_words
from minialex_cuda.ops.words import (
    BLOCK,
    FLOAT32,
    PAIRS,
    STORAGES,
    Storage,
    image_at,
    in_rows,
    over_places,
    storage_for,
    storage_of,
    word_at,
)
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Grid, GridKernel, function
from minialex_cuda.runtime.place import Place

_ZERO = np.float32(0)

# ---- to and from channels first -------------------------------------------------------------------------------


def _to_last(source: Storage, storage: Storage) -> GridKernel:
    one, store = source.one, storage.store

    def body(tile, word, n, lane, __, x, y, places, words, lanes):
        """y[n, place, c] = x[n, c, place]: a thread's neighbours read neighbouring places."""
        place = np.int32(tile * lanes + lane)
        if place < places:
            image = image_at(n, places, 1, words)
            j = np.uint64(4) * image + np.uint64(np.uint32(4 * word * places + place))
            step = np.uint64(places)
            store(
                y, image + np.uint64(np.uint32(place * words + word)),
                one(x, j), one(x, j + step), one(x, j + step + step), one(x, j + step + step + step),
            )  # fmt: skip

    return GridKernel(f"to_last_{source.name}_{storage.name}", ("y",), body)


def _to_first(storage: Storage, target: Storage) -> GridKernel:
    load, put = storage.load, target.put

    def body(tile, word, n, lane, __, x, y, places, words, lanes):
        """y[n, c, place] = x[n, place, c]."""
        place = np.int32(tile * lanes + lane)
        if place < places:
            image = image_at(n, places, 1, words)
            a, b, c, d = load(x, image + np.uint64(np.uint32(place * words + word)))
            j = np.uint64(4) * image + np.uint64(np.uint32(4 * word * places + place))
            step = np.uint64(places)
            put(y, j, a)
            put(y, j + step, b)
            put(y, j + step + step, c)
            put(y, j + step + step + step, d)

    return GridKernel(f"to_first_{storage.name}_{target.name}", ("y",), body)


TO_LAST = {(a.name, b.name): _to_last(a, b) for a, b in PAIRS}
TO_FIRST = {(b.name, a.name): _to_first(b, a) for a, b in PAIRS}


def to_last(on: Place, x: CudaArray, shape: Sequence[int] = ()) -> CudaArray:
    """[N,C,H,W] (of that shape, where it lies as rows) as [N,H,W,C] in the place's storage."""
    N, C, H, W = shape or x.shape
    source, storage = storage_of(x), storage_for(on.precision)
    y = on.empty((N, H, W, C), storage.dtype)
    grid = in_rows(H * W, C // 4, N)
    on.launch(
        TO_LAST[source.name, storage.name], grid, x, storage.words(on, y), H * W, C // 4, grid.threads[0]
    )  # fmt: skip
    return y


def to_first(on: Place, x: CudaArray, rows: bool = False) -> CudaArray:
    """The inverse, in float32; or as rows [N,1,1,C·H·W], stored as they are."""
    (N, H, W, C), storage = x.shape, storage_of(x)
    target = storage if rows else FLOAT32
    y = on.empty((N, 1, 1, C * H * W) if rows else (N, C, H, W), target.dtype)
    grid = in_rows(H * W, C // 4, N)
    on.launch(TO_FIRST[storage.name, target.name], grid, storage.words(on, x), y, H * W, C // 4, grid.threads[0])
    return y


def _convert(source: Storage, target: Storage) -> GridKernel:
    load, store = source.load, target.store

    def body(block, _, __, lane, ___, x, y, first, words, lanes):
        """Words of x, from one on, in another storage."""
        j = np.uint64(block) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            a, b, c, d = load(x, np.uint64(first) + j)
            store(y, j, a, b, c, d)

    return GridKernel(f"convert_{source.name}_{target.name}", ("y",), body)


CONVERT = {(a.name, b.name): _convert(a, b) for a in STORAGES for b in STORAGES if a is FLOAT32 or b is FLOAT32}


def convert(on: Place, x: CudaArray, y: CudaArray, first: int = 0) -> None:
    """y = x, from a number on, in y's storage."""
    source, target, words = storage_of(x), storage_of(y), y.size // 4
    grid = in_rows(words)
    arrays = source.words(on, x), target.words(on, y)
    on.launch(CONVERT[source.name, target.name], grid, *arrays, first // 4, words, grid.threads[0])


def converted(on: Place, x: CudaArray, *, dtype: Any) -> CudaArray:
    """An array of any shape in another storage."""
    y = on.empty(x.shape, dtype)
    convert(on, x, y)
    return y


# ---- element by element ---------------------------------------------------------------------------------------


@function
def _added(a, b):
    return a + b


@function
def _masked(dy, y):
    return dy if y > _ZERO else _ZERO


def _pairs(name: str, storage: Storage, rule) -> GridKernel:
    """A kernel of two arrays: y = rule(a, b), number by number."""
    load, store = storage.load, storage.store

    def body(block, _, __, lane, ___, a, b, y, words, lanes):
        j = np.uint64(block) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            a0, a1, a2, a3 = load(a, j)
            b0, b1, b2, b3 = load(b, j)
            store(y, j, rule(a0, b0), rule(a1, b1), rule(a2, b2), rule(a3, b3))

    return GridKernel(f"{name}_{storage.name}", ("y",), body)


def _relu(storage: Storage) -> GridKernel:
    load, store = storage.load, storage.store

    def body(block, _, __, lane, ___, x, y, words, lanes):
        """y = x unless it is negative: not a number stays so."""
        j = np.uint64(block) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            a, b, c, d = load(x, j)
            store(
                y, j, _ZERO if a <= _ZERO else a, _ZERO if b <= _ZERO else b, _ZERO if c <= _ZERO else c,
                _ZERO if d <= _ZERO else d,
            )  # fmt: skip

    return GridKernel(f"relu_{storage.name}", ("y",), body)


ADD = {storage.name: _pairs("add", storage, _added) for storage in STORAGES}
RELU_BACKWARD = {storage.name: _pairs("relu_backward", storage, _masked) for storage in STORAGES}
RELU = {storage.name: _relu(storage) for storage in STORAGES}


def add(on: Place, x: CudaArray, y: CudaArray) -> CudaArray:
    """x + y."""
    return _each(on, ADD, x, y)


def relu(on: Place, x: CudaArray) -> CudaArray:
    """y = max(x, 0)."""
    return _each(on, RELU, x)


def relu_backward(on: Place, dy: CudaArray, y: CudaArray) -> CudaArray:
    """dx = dy where y > 0, else 0."""
    return _each(on, RELU_BACKWARD, dy, y)


def _each(on: Place, kernels: dict[str, GridKernel], *xs: CudaArray) -> CudaArray:
    storage, y = storage_of(xs[0]), on.empty(xs[0].shape, xs[0].dtype)
    arrays = [storage.words(on, array) for array in (*xs, y)]
    grid = in_rows(y.size // 4)
    on.launch(kernels[storage.name], grid, *arrays, y.size // 4, grid.threads[0])
    return y


# ---- columns --------------------------------------------------------------------------------------------------


def _block(tile, chunk, _, lane, place, x, y, places, many, across, words, from_row, from_first, to_row, to_first):
    """Copy `words` of each place, `from_row` apart from `from_first` on, to others `to_row` apart."""
    p = np.uint64(tile) * np.uint64(many) + np.uint64(place)
    c = np.int32(chunk * across + lane)
    if p < np.uint64(places) and c < words:
        y[p * np.uint64(to_row) + np.uint64(to_first + c)] = x[p * np.uint64(from_row) + np.uint64(from_first + c)]


BLOCK_WORDS = GridKernel("block_words", ("y",), _block)


def _copied(on: Place, x: CudaArray, y: CudaArray, C: int, from_first: int, to_first: int) -> None:
    """C channels of x, from one on, to those of y from one on."""
    places, wide = math.prod(x.shape[:3]), 8 // x.dtype.itemsize
    a, b = (on.view(array, np.uint64, (array.size // wide,)) for array in (x, y))
    words, *rest = (n // wide for n in (C, x.shape[3], from_first, y.shape[3], to_first))
    across = max(min(words, BLOCK), 1)
    many = BLOCK // across
    grid = Grid((-(-places // many), -(-words // across), 1), (across, many, 1))
    on.launch(BLOCK_WORDS, grid, a, b, places, many, across, words, *rest)


def concat(on: Place, xs: Sequence[CudaArray]) -> CudaArray:
    """Channels side by side."""
    y = on.empty((*xs[0].shape[:3], sum(x.shape[3] for x in xs)), xs[0].dtype)
    first = 0
    for x in xs:
        _copied(on, x, y, x.shape[3], 0, first)
        first += x.shape[3]
    return y


def split(on: Place, x: CudaArray, sizes: Sequence[int]) -> list[CudaArray]:
    """The inverse of `concat`."""
    pieces, first = [], 0
    for size in sizes:
        pieces.append(on.empty((*x.shape[:3], size), x.dtype))
        _copied(on, x, pieces[-1], size, first, 0)
        first += size
    return pieces


# ---- pooling --------------------------------------------------------------------------------------------------


def _max_pool2d(storage: Storage) -> GridKernel:
    load, store = storage.load, storage.store

    def body(tile, p, n, c, place, x, y, where, H, W, P, Q, words, many):
        """y = the largest x of a 3 × 3 window, where = its place within the window, in row order."""
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
                    x0, x1, x2, x3 = load(x, image + word_at(h, w, c, W, words))
                    here = np.uint32(3 * r + s)
                    if x0 > best0 or x0 != x0:
                        best0 = x0
                        where0 = here
                    if x1 > best1 or x1 != x1:
                        best1 = x1
                        where1 = here
                    if x2 > best2 or x2 != x2:
                        best2 = x2
                        where2 = here
                    if x3 > best3 or x3 != x3:
                        best3 = x3
                        where3 = here
        o = image_at(n, P, Q, words) + word_at(p, q, c, Q, words)
        store(y, o, best0, best1, best2, best3)
        low = np.uint32(where0 | np.uint32(where1 << np.uint32(8)))
        high = np.uint32(where2 | np.uint32(where3 << np.uint32(8)))
        where[o] = np.uint32(low | np.uint32(high << np.uint32(16)))

    return GridKernel(f"max_pool2d_{storage.name}", ("y", "where"), body)


def _max_pool2d_backward(storage: Storage) -> GridKernel:
    gathered, load, store = gathered_by(storage), storage.load, storage.store

    def body(tile, h, n, c, place, dy, x, where, dx, H, W, P, Q, words, many, rectify):
        """dx = Σ dy over the windows whose maximum is here; 0 where x is not positive, if asked."""
        w = np.int32(tile * many + place)
        if w >= W:
            return
        image = image_at(n, P, Q, words)
        d0, d1, d2, d3 = gathered(dy, where, image, h, w, P, Q, words, c)
        j = image_at(n, H, W, words) + word_at(h, w, c, W, words)
        if rectify:
            x0, x1, x2, x3 = load(x, j)
            d0 = d0 if x0 > _ZERO else _ZERO
            d1 = d1 if x1 > _ZERO else _ZERO
            d2 = d2 if x2 > _ZERO else _ZERO
            d3 = d3 if x3 > _ZERO else _ZERO
        store(dx, j, d0, d1, d2, d3)

    return GridKernel(f"max_pool2d_backward_{storage.name}", ("dx",), body)


MAX_POOL2D = {storage.name: _max_pool2d(storage) for storage in STORAGES}
MAX_POOL2D_BACKWARD = {storage.name: _max_pool2d_backward(storage) for storage in STORAGES}


def max_pool2d(on: Place, x: CudaArray, *, size: int, stride: int, ceil: bool) -> tuple[CudaArray, CudaArray]:
    """The largest x of every 3 × 3 window, two apart, and where in each it was."""
    (N, H, W, C), storage = x.shape, storage_of(x)
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y, where = on.empty((N, P, Q, C), x.dtype), on.empty((N, P, Q, C), np.uint8)
    grid = over_places(N, P, Q, C)
    on.launch(
        MAX_POOL2D[storage.name], grid, storage.words(on, x), storage.words(on, y), in_words(on, where),
        H, W, P, Q, C // 4, grid.threads[1],
    )  # fmt: skip
    return y, where


def max_pool2d_backward(on: Place, dy: CudaArray, x: CudaArray, where: CudaArray, *, rectify: bool) -> CudaArray:
    """Each window gives its dy to its first maximum; with `rectify` the gradient of the ReLU that made x after it."""
    (N, H, W, C), (P, Q), storage = x.shape, dy.shape[1:3], storage_of(x)
    dx = on.empty(x.shape, x.dtype)
    grid = over_places(N, H, W, C)
    on.launch(
        MAX_POOL2D_BACKWARD[storage.name], grid, storage.words(on, dy), storage.words(on, x), in_words(on, where),
        storage.words(on, dx), H, W, P, Q, C // 4, grid.threads[1], rectify,
    )  # fmt: skip
    return dx
