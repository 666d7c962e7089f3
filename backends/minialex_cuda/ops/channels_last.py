"""Maps with the channels last, [N,H,W,C], in words of four channels: conversions, and the simple operations.

The same bodies make one kernel for each form of storage (see `words`).
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minialex_cuda.ops.words import (
    BLOCK,
    FLOAT32,
    PAIRS,
    STORAGES,
    ZEROS,
    Storage,
    image_at,
    in_rows,
    larger,
    masked,
    plus,
    storage_for,
    storage_of,
)
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Grid, GridKernel
from minialex_cuda.runtime.place import Place

# ---- to and from channels first -------------------------------------------------------------------------------


def _to_last(source: Storage, storage: Storage) -> GridKernel:
    one, store = source.one, storage.store

    def body(tile, word, n, lane, __, x, y, places, words, lanes):
        """y[n, place, c] = x[n, c, place]: adjacent threads read adjacent places."""
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
    """Convert [N,C,H,W] (`shape`, if x is stored as rows) to [N,H,W,C] in the place's storage."""
    N, C, H, W = shape or x.shape
    source, storage = storage_of(x), storage_for(on.precision)
    y = on.empty((N, H, W, C), storage.dtype)
    grid = in_rows(H * W, C // 4, N)
    on.launch(
        TO_LAST[source.name, storage.name], grid, x, storage.words(on, y), H * W, C // 4, grid.threads[0]
    )  # fmt: skip
    return y


def to_first(on: Place, x: CudaArray, rows: bool = False) -> CudaArray:
    """The inverse, in float32; or as rows [N,1,1,C·H·W] in the same storage."""
    (N, H, W, C), storage = x.shape, storage_of(x)
    target = storage if rows else FLOAT32
    y = on.empty((N, 1, 1, C * H * W) if rows else (N, C, H, W), target.dtype)
    grid = in_rows(H * W, C // 4, N)
    on.launch(TO_FIRST[storage.name, target.name], grid, storage.words(on, x), y, H * W, C // 4, grid.threads[0])
    return y


def _convert(source: Storage, target: Storage) -> GridKernel:
    load, store = source.load, target.store

    def body(block, _, __, lane, ___, x, y, first, words, lanes):
        """Convert words of x, from `first` on, to another storage."""
        j = np.uint64(block) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            store(y, j, *load(x, np.uint64(first) + j))

    return GridKernel(f"convert_{source.name}_{target.name}", ("y",), body)


CONVERT = {(a.name, b.name): _convert(a, b) for a in STORAGES for b in STORAGES if a is FLOAT32 or b is FLOAT32}


def convert(on: Place, x: CudaArray, y: CudaArray, first: int = 0) -> None:
    """y = x, from number `first` on, in y's storage."""
    source, target, words = storage_of(x), storage_of(y), y.size // 4
    grid = in_rows(words)
    arrays = source.words(on, x), target.words(on, y)
    on.launch(CONVERT[source.name, target.name], grid, *arrays, first // 4, words, grid.threads[0])


def converted(on: Place, x: CudaArray, *, dtype: Any) -> CudaArray:
    """Convert an array of any shape to another storage."""
    y = on.empty(x.shape, dtype)
    convert(on, x, y)
    return y


# ---- element by element ---------------------------------------------------------------------------------------


def _pairs(name: str, storage: Storage, rule) -> GridKernel:
    """Make a kernel of two arrays: y = rule(a, b), word by word."""
    load, store = storage.load, storage.store

    def body(block, _, __, lane, ___, a, b, y, words, lanes):
        j = np.uint64(block) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            store(y, j, *rule(load(a, j), load(b, j)))

    return GridKernel(f"{name}_{storage.name}", ("y",), body)


def _relu(storage: Storage) -> GridKernel:
    load, store = storage.load, storage.store

    def body(block, _, __, lane, ___, x, y, words, lanes):
        j = np.uint64(block) * np.uint64(lanes) + np.uint64(lane)
        if j < np.uint64(words):
            store(y, j, *larger(load(x, j), ZEROS))

    return GridKernel(f"relu_{storage.name}", ("y",), body)


ADD = {storage.name: _pairs("add", storage, plus) for storage in STORAGES}
RELU_BACKWARD = {storage.name: _pairs("relu_backward", storage, masked) for storage in STORAGES}
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
    """Copy `words` words of each place, at stride `from_row` from `from_first` on, to others at stride `to_row`."""
    p = np.uint64(tile) * np.uint64(many) + np.uint64(place)
    c = np.int32(chunk * across + lane)
    if p < np.uint64(places) and c < words:
        y[p * np.uint64(to_row) + np.uint64(to_first + c)] = x[p * np.uint64(from_row) + np.uint64(from_first + c)]


BLOCK_WORDS = GridKernel("block_words", ("y",), _block)


def _copied(on: Place, x: CudaArray, y: CudaArray, C: int, from_first: int, to_first: int) -> None:
    """Copy C channels of x, from `from_first` on, to those of y from `to_first` on."""
    places, wide = math.prod(x.shape[:3]), 8 // x.dtype.itemsize
    a, b = (on.view(array, np.uint64, (array.size // wide,)) for array in (x, y))
    words, *rest = (n // wide for n in (C, x.shape[3], from_first, y.shape[3], to_first))
    across = max(min(words, BLOCK), 1)
    many = BLOCK // across
    grid = Grid((-(-places // many), -(-words // across), 1), (across, many, 1))
    on.launch(BLOCK_WORDS, grid, a, b, places, many, across, words, *rest)


def concat(on: Place, xs: Sequence[CudaArray]) -> CudaArray:
    """Concatenate channels."""
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
