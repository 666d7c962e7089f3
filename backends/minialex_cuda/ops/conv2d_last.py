"""Convolution of channels-last maps, as compiled steps do it: by a library, or through a matrix of patches.

The matrix of patches is [N·P·Q, R·S·C], and a product with it is already channels last. A convolution whose images have
few channels, the first one of a network, works on blocks of its stride: s × s places become the channels of one
(`space_to_depth`), and 11 × 11 kernels at stride 4 with 3 channels become 3 × 3 kernels at stride 1 with 48 channels.
Everywhere else weights and their gradients are float32 in the protocol's order.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from minialex.backend.arrays import Padding
from minialex_cuda.ops.channels_last import convert
from minialex_cuda.ops.conv2d import pieces
from minialex_cuda.ops.conv2d_library import output_size
from minialex_cuda.ops.words import (
    BLOCK,
    FLOAT32,
    PAIRS,
    STORAGES,
    ZEROS,
    Storage,
    image_at,
    larger,
    masked,
    over_places,
    plus,
    storage_for,
    storage_of,
    word_at,
)
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import Grid, GridKernel, function
from minialex_cuda.runtime.place import Place
from minialex_cuda.runtime.protocol import Convolution, Kind

NONE: Padding = ((0, 0), (0, 0))
_ZERO = np.float32(0)

FUSED = ("bfloat16", "tf32")
"""Precisions in which the library adds the bias: in float32 cuDNN has only slow plans for that."""

# ---- images and weights as the library takes them -------------------------------------------------------------


def deep(C: int, stride: int) -> int:
    """Channels of a place after `space_to_depth`: a multiple of eight, as tensor cores require."""
    return -(-C * stride * stride // 8) * 8


def _in_blocks(value):
    """Make a function that returns the four numbers of a word of a place that is a block of stride × stride pixels.

    Channel (i·stride + j)·C + c of such a place is ``value(given, c, i, j)``; beyond the block it is zero.
    """
    value = function(value)

    @function
    def one(given, c, i, j, stride):
        return value(given, c, i, j) if i < stride else _ZERO

    @function
    def after(c, i, j, C, stride):
        c = np.int32(c + 1)
        if c == C:
            c = np.int32(0)
            j = np.int32(j + 1)
            if j == stride:
                j = np.int32(0)
                i = np.int32(i + 1)
        return c, i, j

    def four(given, word, C, stride):
        c, i, j = np.int32(4 * word), np.int32(0), np.int32(0)
        if np.int32(c + 3) >= C:  # else all four belong to one pixel
            block = np.int32(c // C)
            c = np.int32(c - block * C)
            i = np.int32(block // stride)
            j = np.int32(block - i * stride)
        a = one(given, c, i, j, stride)
        c, i, j = after(c, i, j, C, stride)
        b = one(given, c, i, j, stride)
        c, i, j = after(c, i, j, C, stride)
        d = one(given, c, i, j, stride)
        c, i, j = after(c, i, j, C, stride)
        return a, b, d, one(given, c, i, j, stride)

    return function(four)


@_in_blocks
def _pixels(given, c, i, j):
    x, image, H, W, h, w = given
    h = np.int32(h + i)
    w = np.int32(w + j)
    if 0 <= h < H and 0 <= w < W:
        return x[image + np.uint64(np.uint32(np.int32(np.int32(c * H) + h) * W + w))]
    return _ZERO


def _space_to_depth(storage: Storage) -> GridKernel:
    store = storage.store

    def body(tile, u, n, word, place, x, y, C, H, W, U, V, words, many, stride, above, left):
        """y[n, u, v, (i·stride + j)·C + c] = x̄[n, c, u·stride + i − above, v·stride + j − left], x̄ = padded x."""
        v = np.int32(tile * many + place)
        if v < V:
            image = np.uint64(n) * np.uint64(np.uint32(np.int32(C * H) * W))
            h, w = np.int32(np.int32(u * stride) - above), np.int32(np.int32(v * stride) - left)
            found = _pixels((x, image, H, W, h, w), word, C, stride)
            store(y, image_at(n, U, V, words) + word_at(u, v, word, V, words), *found)

    return GridKernel(f"space_to_depth_{storage.name}", ("y",), body)


SPACE_TO_DEPTH = {storage.name: _space_to_depth(storage) for storage in STORAGES}


def deep_shape(
    x: tuple[int, ...], *, stride: int, padding: Padding, kernel: tuple[int, ...]
) -> tuple[int, int, int, int]:
    """The shape that `space_to_depth` gives images of a shape."""
    P, Q = output_size(x, (1, x[1], *kernel), stride, padding)
    U, V = (n + -(-size // stride) - 1 for n, size in zip((P, Q), kernel, strict=True))
    return x[0], U, V, deep(x[1], stride)


def space_to_depth(on: Place, x: CudaArray, *, stride: int, padding: Padding, kernel: tuple[int, ...]) -> CudaArray:
    """Images [N,C,H,W] in the layout of the first convolution, with their zero padding."""
    (_, C, H, W), storage = x.shape, storage_for(on.precision)
    y = on.empty(deep_shape(x.shape, stride=stride, padding=padding, kernel=kernel), storage.dtype)
    _, U, V, _ = y.shape
    grid = over_places(*y.shape)
    on.launch(
        SPACE_TO_DEPTH[storage.name], grid, x, storage.words(on, y), C, H, W, U, V, y.shape[3] // 4, grid.threads[1],
        stride, padding[0][0], padding[1][0],
    )  # fmt: skip
    return y


@function
def _augmented(
    tile, u, n, j, place, shared, images, mean, shift, top, left, mirrored, H, W, words, many, pitch, above, before,
    crop, factor, follows, C, stride,
):  # fmt: skip
    """Write a column of a place's pixels to the block's shared memory."""
    at = np.uint32(place * words)
    number = np.int32(np.int32(np.int32(C * stride) * stride) + j)
    while number < np.int32(4 * words):  # padding channels up to a multiple of eight
        shared[np.uint32(np.uint32(np.int32(number & 3) * pitch) + at + np.uint32(number >> 2))] = _ZERO
        number = np.int32(number + stride)
    column = np.int32(np.int32(np.int32(tile * many) + place) * stride + j - before)
    row = np.int32(np.int32(u * stride) - above)
    across = np.int32(left + (crop - 1 - column if mirrored else column))
    begin = np.int32(np.int32(np.int32(top + row) * W) + across)
    image, shifts = np.uint64(n) * np.uint64(np.uint32(np.int32(C * H) * W)), np.int32(n * C)
    plane = np.int32(H * W)
    taken, taken_plane, taken_row = begin, plane, W
    if not follows:
        taken, taken_plane, taken_row = (
            np.int32(np.int32(row * crop) + column), np.int32(crop * crop), crop,
        )  # fmt: skip
    inside, row_numbers = np.uint32(column) < np.uint32(crop), np.int32(C * stride)
    c = np.int32(0)
    while c < C:
        moved = shift[np.uint32(shifts + c)]
        here, there, number, i = begin, taken, np.int32(np.int32(j * C) + c), np.int32(0)
        slot = np.uint32(np.uint32(np.int32(number & 3) * pitch) + at + np.uint32(number >> 2))
        while i < stride:
            kept = inside & (np.uint32(row + i) < np.uint32(crop))
            pixel = np.float32(
                images[image + np.uint64(np.uint32(here if kept else 0))]
            )  # loads without waiting for the test
            value = factor * (pixel + moved - mean[np.uint32(there if kept else 0)])
            shared[slot] = value if kept else _ZERO
            here, there = np.int32(here + W), np.int32(there + taken_row)
            number, i = np.int32(number + row_numbers), np.int32(i + 1)
            if row_numbers & 3 == 0:
                slot = np.uint32(slot + np.uint32(row_numbers >> 2))
            else:
                slot = np.uint32(np.uint32(np.int32(number & 3) * pitch) + at + np.uint32(number >> 2))
        begin, taken, c = np.int32(begin + plane), np.int32(taken + taken_plane), np.int32(c + 1)


def _augment_deep(storage: Storage) -> GridKernel:
    store = storage.store

    def first(
        tile, u, n, j, place, shared, images, mean, shift, top, left, flip, y, C, H, W, U, V, words, many, pitch,
        stride, above, before, crop, factor, follows,
    ):  # fmt: skip
        """`augment` (section 4.1) and `space_to_depth` fused, from bytes to the input of conv1.

        A thread does one column of pixels of the block's places; number e of a place is shared at e mod 4, e div 4.
        """
        down, right, mirrored = top[n], left[n], flip[n] == 1
        if C == 3 and stride == 4:  # the paper's: the compiler unrolls all loops
            _augmented(
                tile, u, n, j, place, shared, images, mean, shift, down, right, mirrored, H, W, words, many, pitch,
                above, before, crop, factor, follows, np.int32(3), np.int32(4),
            )  # fmt: skip
        else:
            _augmented(
                tile, u, n, j, place, shared, images, mean, shift, down, right, mirrored, H, W, words, many, pitch,
                above, before, crop, factor, follows, C, stride,
            )  # fmt: skip
        return np.int32(place * stride + j)

    def second(
        tile, u, n, j, place, shared, lane, images, mean, shift, top, left, flip, y, C, H, W, U, V, words, many,
        pitch, stride, above, before, crop, factor, follows,
    ):  # fmt: skip
        first = np.int32(tile * many)
        o = image_at(n, U, V, words) + word_at(u, first, 0, V, words)
        end, t = np.int32(min(many, np.int32(V - first)) * words), np.int32(lane)
        while t < end:
            a = np.uint32(t)
            b = np.uint32(a + np.uint32(pitch))
            c = np.uint32(b + np.uint32(pitch))
            store(y, o + np.uint64(a), shared[a], shared[b], shared[c], shared[np.uint32(c + np.uint32(pitch))])
            t = np.int32(t + np.int32(many * stride))

    return GridKernel(f"augment_deep_{storage.name}", ("y",), first, second)


SHARED = 1 << 13
"""The most numbers that a block of `augment_deep` shares."""

AUGMENT_DEEP = {storage.name: _augment_deep(storage) for storage in STORAGES}


def augment_deep(
    on: Place, images: CudaArray, mean: CudaArray, shift: CudaArray, top: CudaArray, left: CudaArray, flip: CudaArray,
    *, crop: int, factor: float, mean_follows: bool, stride: int, padding: Padding, kernel: tuple[int, ...],
) -> CudaArray:  # fmt: skip
    """`minialex_cuda.ops.augment.augment`, then `space_to_depth`."""
    (N, C, H, W), storage = images.shape, storage_for(on.precision)
    y = on.empty(deep_shape((N, C, crop, crop), stride=stride, padding=padding, kernel=kernel), storage.dtype)
    _, U, V, _ = y.shape
    words = y.shape[3] // 4
    tiles = -(-V // max(1, min(BLOCK // stride, SHARED // (4 * words))))
    many = -(-V // max(tiles, 1))
    pitch = many * words + 2  # padded by two: fewer bank conflicts in shared memory
    on.launch(
        AUGMENT_DEEP[storage.name], Grid((tiles, U, N), (stride, many, 1), 4 * pitch), images, mean, shift, top, left,
        flip, storage.words(on, y), C, H, W, U, V, words, many, pitch, stride, padding[0][0], padding[1][0], crop,
        np.float32(factor), mean_follows,
    )  # fmt: skip
    return y


@_in_blocks
def _taps(given, c, i, j):
    w, k, C, R, S, r, s = given
    r = np.int32(r + i)
    s = np.int32(s + j)
    return w[np.uint32(((k * C + c) * R + r) * S + s)] if r < R and s < S else _ZERO


def _kernels(storage: Storage) -> GridKernel:
    store = storage.store

    def body(tile, row, k, lane, first, w, y, C, R, S, down, across, words, stride, lanes, many):
        """y[k, r', s', (i·stride + j)·C + c] = w[k, c, r'·stride + i, s'·stride + j], zeros beyond."""
        word = np.int32(tile * lanes + lane)
        if word >= words:
            return
        r, taps = np.int32(row * stride), np.int32(np.int32(k * down + row) * across)
        column = np.int32(first)
        while column < across:
            found = _taps((w, k, C, R, S, r, np.int32(column * stride)), word, C, stride)
            store(y, np.uint64(np.uint32(np.int32(taps + column) * words + word)), *found)
            column = np.int32(column + many)

    return GridKernel(f"kernels_last_{storage.name}", ("y",), body)


def _kernels_first(storage: Storage) -> GridKernel:
    one = storage.one

    def body(tile, r, k, lane, first, y, dw, C, R, S, across, taps, channels, stride, lanes, many):
        """The inverse of `kernels_last`: dw[k, c, r, s], float32; a block does some channels of a row of a kernel."""
        c = np.int32(tile * lanes + lane)
        if c >= C:
            return
        row, i = np.int32(r), np.int32(0)
        if stride > 1:
            row = np.int32(r // stride)
            i = np.int32(r - row * stride)
        place, to = np.int32(k * taps + row * across), np.int32(np.int32(np.int32(k * C + c) * R + r) * S)
        s = np.int32(first)
        while s < S:
            column, j = s, np.int32(0)
            if stride > 1:
                column = np.int32(s // stride)
                j = np.int32(s - column * stride)
            inner = np.int32(np.int32(np.int32(i * stride) + j) * C + c)
            dw[np.uint32(to + s)] = one(y, np.uint32(np.int32(np.int32(place + column) * channels) + inner))
            s = np.int32(s + many)

    return GridKernel(f"kernels_first_{storage.name}", ("dw",), body)


KERNELS_LAST = {storage.name: _kernels(storage) for storage in STORAGES}
KERNELS_FIRST = {storage.name: _kernels_first(storage) for storage in STORAGES}


def _shape_last(w: tuple[int, ...], stride: int, deepened: bool) -> tuple[int, int, int, int]:
    K, C, R, S = w
    return (K, -(-R // stride), -(-S // stride), deep(C, stride)) if deepened else (K, R, S, C)


def kernels_last(on: Place, w: CudaArray, storage: Storage, stride: int, deepened: bool) -> CudaArray:
    """Weights [K,C,R,S] as [K,R,S,C], or in the order of `space_to_depth`."""
    K, C, R, S = w.shape
    y = on.scratch(_shape_last(w.shape, stride, deepened), storage.dtype)
    down, across, words = y.shape[1], y.shape[2], y.shape[3] // 4
    lanes = max(min(words, 64), 1)
    grid = Grid((-(-words // lanes), down, K), (lanes, min(across, BLOCK // lanes), 1))
    on.launch(
        KERNELS_LAST[storage.name], grid, w, storage.words(on, y), C, R, S, down, across, words,
        stride if deepened else 1, *grid.threads[:2],
    )  # fmt: skip
    return y


def kernels_first(on: Place, y: CudaArray, dw: CudaArray, stride: int, deepened: bool) -> None:
    """The inverse, into `dw`."""
    K, C, R, S = dw.shape
    _, down, across, channels = y.shape
    lanes = max(min(C, 64), 1)
    grid = Grid((-(-C // lanes), R, K), (lanes, min(S, BLOCK // lanes), 1))
    on.launch(
        KERNELS_FIRST[storage_of(y).name], grid, y, dw, C, R, S, across, down * across, channels,
        stride if deepened else 1, *grid.threads[:2],
    )  # fmt: skip


# ---- bias, ReLU, and their gradients --------------------------------------------------------------------------

EACH, AT_ONCE = 32, 4
"""The most places per thread of a block, and how many of them it has in flight at once."""

ENOUGH = 528
"""Blocks that fill a device: if there are fewer, each thread sums fewer places."""

WIDE, THREADS = 96, 384
"""Words of a place per block (more are split into pieces of a warp's 32), and threads per block."""


def _rows_grid(places: int, K: int, each: int) -> Grid:
    """Blocks (places, words) of threads (word, place), each thread with `each` places."""
    words = K // 4
    wide = words if words <= WIDE else 32
    many = max(min(THREADS // max(wide, 1), places), 1)
    return Grid((-(-places // (each * many)), -(-words // max(wide, 1)), 1), (wide, many, 1), 4 * wide * many)


def _bias(source: Storage, storage: Storage) -> GridKernel:
    load, store = source.load, storage.store

    rectified = function(lambda found, rectify: larger(found, ZEROS) if rectify else found)

    def body(tile, chunk, _, lane, place, x, b, y, first, places, wide, many, words, rectify):
        """y[first + place, k] = x[place, k] + b[k], optionally rectified."""
        c = np.int32(chunk * wide + lane)
        if c >= words:
            return
        k = np.uint32(4 * c)
        shift = b[k], b[np.uint32(k + 1)], b[np.uint32(k + 2)], b[np.uint32(k + 3)]
        p = np.uint32(np.uint32(tile * AT_ONCE) * np.uint32(many) + np.uint32(place))
        j = np.uint64(np.uint32(p * np.uint32(words) + np.uint32(c)))
        to = np.uint64(first) * np.uint64(words) + j
        step = np.uint64(np.uint32(many * words))
        if np.uint32(p + 3 * many) < np.uint32(places):  # all four loads are issued before any store
            e, f = load(x, j), load(x, j + step)
            g, h = load(x, j + step + step), load(x, j + step + step + step)
            store(y, to, *rectified(plus(e, shift), rectify))
            store(y, to + step, *rectified(plus(f, shift), rectify))
            store(y, to + step + step, *rectified(plus(g, shift), rectify))
            store(y, to + step + step + step, *rectified(plus(h, shift), rectify))
        else:
            for _ in range(3):
                if p < np.uint32(places):
                    store(y, to, *rectified(plus(load(x, j), shift), rectify))
                p = np.uint32(p + many)
                j += step
                to += step

    return GridKernel(f"bias_{source.name}_{storage.name}", ("y",), body)


BIAS = {(source.name, storage.name): _bias(source, storage) for source, storage in PAIRS}


def add_bias(on: Place, x: CudaArray, b: CudaArray, y: CudaArray, first: int, places: int, rectify: bool) -> None:
    """Add the bias to products x [places, K] and write them to y from place `first` on; x may be y."""
    source, storage, K = storage_of(x), storage_of(y), b.size
    grid = replace(_rows_grid(places, K, AT_ONCE), shared=0)
    on.launch(
        BIAS[source.name, storage.name], grid, source.words(on, x), b, storage.words(on, y), first, places,
        *grid.threads[:2], K // 4, rectify,
    )  # fmt: skip


def _mask_sums(storage: Storage, masks: bool) -> GridKernel:
    load, store = storage.load, storage.store

    @function
    def at(j, dy, y):
        return masked(load(dy, j), load(y, j)) if masks else load(dy, j)

    def first(tile, chunk, _, lane, place, shared, dy, y, out, sums, places, each, wide, many, words):
        """out = dy where y > 0, else 0 (if there is a ReLU), and its sums over the block's places."""
        total = ZEROS
        c = np.int32(chunk * wide + lane)
        if c < words:
            p = np.uint32(np.uint32(tile * each) * np.uint32(many) + np.uint32(place))
            j = np.uint32(p * np.uint32(words) + np.uint32(c))
            end, step = np.uint32(places), np.uint32(many * words)
            for _ in range(0, each, AT_ONCE):
                q, r, s = np.uint32(p + many), np.uint32(p + 2 * many), np.uint32(p + 3 * many)
                k = np.uint32(j + step)
                m = np.uint32(k + step)
                n = np.uint32(m + step)
                if s < end:  # all four loads are issued before any use
                    a, b, d, e = at(j, dy, y), at(k, dy, y), at(m, dy, y), at(n, dy, y)
                    if masks:
                        store(out, j, *a)
                        store(out, k, *b)
                        store(out, m, *d)
                        store(out, n, *e)
                    total = plus(plus(plus(plus(total, a), b), d), e)
                else:
                    for here, there in ((p, j), (q, k), (r, m)):
                        if here < end:
                            a = at(there, dy, y)
                            if masks:
                                store(out, there, *a)
                            total = plus(total, a)
                p = np.uint32(s + many)
                j = np.uint32(n + step)
        t = np.uint32(4 * (place * wide + lane))
        for number in range(4):
            shared[np.uint32(t + number)] = total[number]
        return c

    def second(tile, chunk, _, lane, place, shared, c, dy, y, out, sums, places, each, wide, many, words):
        if c < words:
            for m in range(place, 4, many):
                total = _ZERO
                for other in range(many):
                    total += shared[np.uint32(4 * (other * wide + lane) + m)]
                sums[np.uint32(np.uint32(tile * words + c) * np.uint32(4) + np.uint32(m))] = total

    return GridKernel(f"{'mask' if masks else 'bias'}_sums_{storage.name}", ("out", "sums"), first, second)


COLUMNS, DEEP = 8, 64
"""A block of `column_sums`: COLUMNS columns, one memory sector, of DEEP threads each."""


def _column_sums(tile, _, __, lane, row, shared, sums, total, rows, K):
    """total[k] = Σ of a column: first of every `DEEP`th row, then of these sums, four adjacent ones at a time."""
    k = np.int32(tile * COLUMNS + lane)
    a, b, c, d = ZEROS
    if k < K:
        step = np.uint32(DEEP * K)
        j = np.uint32(row * K + k)
        r = np.int32(row)
        while r + np.int32(3 * DEEP) < rows:  # four independent loads
            a += sums[j]
            b += sums[np.uint32(j + step)]
            c += sums[np.uint32(j + np.uint32(2) * step)]
            d += sums[np.uint32(j + np.uint32(3) * step)]
            j = np.uint32(j + np.uint32(4) * step)
            r = np.int32(r + 4 * DEEP)
        while r < rows:
            a += sums[j]
            j = np.uint32(j + step)
            r = np.int32(r + DEEP)
    shared[np.uint32(row * COLUMNS + lane)] = (a + b) + (c + d)
    return k


def _column_sums_ended(tile, _, __, lane, row, shared, k, sums, total, rows, K):
    if row == 0 and k < K:
        a, b, c, d = ZEROS
        for m in range(0, DEEP, 4):
            t = np.uint32(m * COLUMNS + lane)
            a += shared[t]
            b += shared[np.uint32(t + COLUMNS)]
            c += shared[np.uint32(t + 2 * COLUMNS)]
            d += shared[np.uint32(t + 3 * COLUMNS)]
        total[np.uint32(k)] = (a + b) + (c + d)


MASK_SUMS = {(s.name, masks): _mask_sums(s, masks) for s in STORAGES for masks in (False, True)}
COLUMN_SUMS = GridKernel("column_sums", ("total",), _column_sums, _column_sums_ended)


def bias_gradient(on: Place, dy: CudaArray, relu: CudaArray | None, db: CudaArray | None) -> CudaArray:
    """dy, or its gradient through the ReLU with output `relu`; if given, db gets its sums over all places."""
    storage, K, places = storage_of(dy), dy.shape[3], math.prod(dy.shape[:3])
    if relu is None and db is None:
        return dy
    least = _rows_grid(places, K, 1)
    blocks = least.blocks[0] * least.blocks[1]
    each = min(EACH, -(-blocks // (ENOUGH * AT_ONCE)) * AT_ONCE) or AT_ONCE
    grid = _rows_grid(places, K, each)
    rows = grid.blocks[0]
    out = dy if relu is None else on.scratch(dy.shape, dy.dtype)
    sums = on.scratch((max(rows, 1), K), np.float32)
    arrays = [storage.words(on, array) for array in (dy, relu or dy, out)]
    read, written = (arrays[:1], [sums]) if relu is None else (arrays[:2], [arrays[2], sums])
    on.launch(
        MASK_SUMS[storage.name, relu is not None], grid, *arrays, sums, places, each, *grid.threads[:2], K // 4,
        touched=(read, written),
    )  # fmt: skip
    if db is not None:
        grid = Grid((-(-K // COLUMNS), 1, 1), (COLUMNS, DEEP, 1), COLUMNS * DEEP)
        on.launch(COLUMN_SUMS, grid, sums, db, rows, K)
    return out


# ---- patches, where there is no library -----------------------------------------------------------------------


def _patches(storage: Storage) -> GridKernel:
    load, widely = storage.load, FLOAT32.store

    def body(tile, p, n, c, place, x, patches, first, H, W, P, Q, words, many, R, S, stride, above, left):
        """patches[n, p, q, r, s, c] = x̄[first + n, p·stride + r, q·stride + s, c], float32."""
        q = np.int32(tile * many + place)
        if q >= Q:
            return
        image = image_at(n + first, H, W, words)
        row = (np.uint64(n) * np.uint64(P * Q) + np.uint64(np.uint32(p * Q + q))) * np.uint64(np.int32(R * S) * words)
        for r in range(R):
            h = np.int32(p * stride + r - above)
            for s in range(S):
                w = np.int32(q * stride + s - left)
                found = ZEROS
                if 0 <= h < H and 0 <= w < W:
                    found = load(x, image + word_at(h, w, c, W, words))
                widely(patches, row + word_at(r, s, c, S, words), *found)

    return GridKernel(f"patches_last_{storage.name}", ("patches",), body)


def _from_patches(storage: Storage) -> GridKernel:
    store, widely = storage.store, FLOAT32.load

    def body(tile, h, n, c, place, back, dx, first, H, W, P, Q, words, many, R, S, stride, above, left):
        """dx[first + n, h, w, c] = Σ of back[n, p, q, r, s, c] over the patches that contain it."""
        w = np.int32(tile * many + place)
        if w >= W:
            return
        total = ZEROS
        base = np.uint64(n) * np.uint64(P * Q)
        taps = np.uint64(np.int32(R * S) * words)
        for r in range((h + above) % stride, R, stride):
            p = np.int32((h + above - r) // stride)
            if 0 <= p < P:
                for s in range((w + left) % stride, S, stride):
                    q = np.int32((w + left - s) // stride)
                    if 0 <= q < Q:
                        row = (base + np.uint64(np.uint32(p * Q + q))) * taps
                        total = plus(total, widely(back, row + word_at(r, s, c, S, words)))
        image = image_at(n + first, H, W, words)
        store(dx, image + word_at(h, w, c, W, words), *total)

    return GridKernel(f"from_patches_last_{storage.name}", ("dx",), body)


PATCHES = {storage.name: _patches(storage) for storage in STORAGES}
FROM_PATCHES = {storage.name: _from_patches(storage) for storage in STORAGES}


def _rows(on: Place, dy: CudaArray, first: int, images: int) -> CudaArray:
    """Some images of dy as rows of a float32 matrix [places, K]."""
    _, P, Q, K = dy.shape
    rows = on.scratch((images * P * Q, K), np.float32)
    convert(on, dy, rows, first * P * Q * K)
    return rows


class _Layer:
    """The sizes of a convolution of channels-last maps: of x, of w in that order, of y."""

    def __init__(self, x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: Padding, deepened: bool) -> None:
        self.N, self.H, self.W, self.C = x
        self.K, self.R, self.S, _ = _shape_last(w, stride, deepened)
        self.stride, self.padding = (1, NONE) if deepened else (stride, padding)
        first = (self.N, self.C, self.H, self.W), (self.K, self.C, self.R, self.S)
        self.P, self.Q = output_size(*first, self.stride, self.padding)
        self.depth = self.R * self.S * self.C
        self.places = self.P * self.Q

    def asked(self, on: Place, kind: Kind) -> Convolution:
        """Describe the convolution for the library."""
        return Convolution(
            kind, self.N, self.C, self.H, self.W, self.K, self.R, self.S, self.P, self.Q, self.stride, self.padding,
            on.precision, last=True,
        )  # fmt: skip

    def pieces(self) -> list[tuple[int, int]]:
        """See `minialex_cuda.ops.conv2d.pieces`."""
        return pieces(self.N, 4 * self.depth * self.places)

    def launch(
        self,
        on: Place,
        kernels: dict[str, GridKernel],
        x: CudaArray,
        flat: CudaArray,
        *,
        back: bool,
        piece: tuple[int, int],
    ) -> None:
        """Write the patches of some images, or with `back` gather from them."""
        first, images = piece
        storage = storage_of(x)
        grid = over_places(images, *((self.H, self.W) if back else (self.P, self.Q)), self.C)
        arrays = storage.words(on, x), flat
        on.launch(
            kernels[storage.name], grid, *(arrays[::-1] if back else arrays), first, self.H, self.W, self.P, self.Q,
            self.C // 4, grid.threads[1], self.R, self.S, self.stride, self.padding[0][0], self.padding[1][0],
        )  # fmt: skip


def conv2d(
    on: Place, x: CudaArray, w: CudaArray, b: CudaArray, *,
    stride: int, padding: Padding, deepened: bool = False, rectify: bool = False,
) -> CudaArray:  # fmt: skip
    """y[k] = b[k] + w[k] · patches; with `rectify`, the ReLU is applied as the bias is added.

    The library adds the bias, in x's format, before the sums are rounded, if it can. `deepened`: x comes from
    `space_to_depth`.
    """
    it = _Layer(x.shape, w.shape, stride, padding, deepened)
    y = on.empty((it.N, it.P, it.Q, it.K), x.dtype)
    fused = replace(it.asked(on, "fprop"), bias=True, rectify=rectify)
    workspace = on.library(fused, x) if on.precision in FUSED else None
    if workspace is not None:
        bias = b
        if b.dtype != x.dtype:
            bias = on.scratch(b.shape, x.dtype)
            convert(on, b, bias)
        on.convolve(fused, x, kernels_last(on, w, storage_of(x), stride, deepened), y, workspace, bias)
        return y
    workspace = on.library(it.asked(on, "fprop"), x)
    if workspace is not None:
        on.convolve(it.asked(on, "fprop"), x, kernels_last(on, w, storage_of(x), stride, deepened), y, workspace)
        add_bias(on, y, b, y, 0, it.N * it.places, rectify)
        return y
    weights = kernels_last(on, w, FLOAT32, stride, deepened)
    for first, images in it.pieces():
        many = images * it.places
        patches, flat = on.scratch((many, it.depth), np.float32), on.scratch((many, it.K), np.float32)
        it.launch(on, PATCHES, x, patches, back=False, piece=(first, images))
        on.multiply(patches, weights, flat, many, it.K, it.depth, transpose_b=True)
        add_bias(on, flat, b, y, first * it.places, many, rectify)
    return y


def conv2d_backward(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding, need_dx: bool, deepened: bool = False,
) -> tuple[CudaArray | None, CudaArray, CudaArray]:  # fmt: skip
    """dx, dw and db; with `relu`, the output of a ReLU, that ReLU's gradient is applied first."""
    db = on.empty((w.shape[0],), w.dtype)
    dy = bias_gradient(on, dy, relu, db)
    dx = _dx(on, dy, x, w, stride, padding) if need_dx else None
    return dx, _dw(on, dy, x, w, stride, padding, deepened), db


def conv2d_dx(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding,
) -> CudaArray:  # fmt: skip
    """The gradient dx; only the shape of x is used."""
    return _dx(on, bias_gradient(on, dy, relu, None), x, w, stride, padding)


def conv2d_dw(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding, deepened: bool = False,
) -> tuple[CudaArray, CudaArray]:  # fmt: skip
    """The gradients of the weights and the bias; only the shape of w is used."""
    db = on.empty((w.shape[0],), w.dtype)
    dy = bias_gradient(on, dy, relu, db)
    return _dw(on, dy, x, w, stride, padding, deepened), db


def _dx(on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, stride: int, padding: Padding) -> CudaArray:
    it = _Layer(x.shape, w.shape, stride, padding, False)
    dx = on.empty(x.shape, x.dtype)
    workspace = on.library(it.asked(on, "dgrad"), dy)
    if workspace is not None:
        on.convolve(it.asked(on, "dgrad"), dy, kernels_last(on, w, storage_of(dy), stride, False), dx, workspace)
        return dx
    weights = kernels_last(on, w, FLOAT32, stride, False)
    for first, images in it.pieces():
        many = images * it.places
        rows, back = _rows(on, dy, first, images), on.scratch((many, it.depth), np.float32)
        on.multiply(rows, weights, back, many, it.depth, it.K)
        it.launch(on, FROM_PATCHES, dx, back, back=True, piece=(first, images))
    return dx


def _dw(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, stride: int, padding: Padding, deepened: bool
) -> CudaArray:
    it = _Layer(x.shape, w.shape, stride, padding, deepened)
    dw = on.empty(w.shape, w.dtype)
    shape = it.K, it.R, it.S, it.C
    workspace = on.library(it.asked(on, "wgrad"), dy)
    if workspace is not None:
        made = on.scratch(shape, dy.dtype)
        on.convolve(it.asked(on, "wgrad"), dy, x, made, workspace)
    else:
        made = on.scratch(shape, np.float32)
        if not it.N:
            on.clear(made)
        for first, images in it.pieces():
            many = images * it.places
            rows, patches = _rows(on, dy, first, images), on.scratch((many, it.depth), np.float32)
            it.launch(on, PATCHES, x, patches, back=False, piece=(first, images))
            on.multiply(rows, patches, made, it.K, it.depth, many, transpose_a=True, accumulate=first > 0)
    kernels_first(on, made, dw, stride, deepened)
    return dw
