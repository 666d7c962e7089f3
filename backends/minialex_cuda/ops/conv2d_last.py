"""Convolution of maps with the channels last, as compiled steps do it: by a library, or by a matrix of patches.

The matrix of patches is [N·P·Q, R·S·C], and what a product with it gives are maps with the channels last already. A
convolution whose images have few channels, the first one of a network, is done over blocks of its stride: s × s places
become the channels of one (`space_to_depth`), and 11 × 11 kernels four apart become 3 × 3 ones next to each other,
of 48 channels instead of 3. Weights and their gradients are float32 in the protocol's order everywhere else.
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
    FLOAT32,
    PAIRS,
    STORAGES,
    ZEROS,
    Storage,
    image_at,
    in_rows,
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
"""Precisions in which a library is asked to add the bias: in float32 cuDNN has but plans for it that are slow."""

# ---- images and weights as the library takes them -------------------------------------------------------------


def deep(C: int, stride: int) -> int:
    """Channels of a place after `space_to_depth`: a multiple of eight, which matrix units want."""
    return -(-C * stride * stride // 8) * 8


def _in_blocks(value):
    """A function of a word of a place that is a block of stride × stride: its four numbers.

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
        c = np.int32(4 * word)
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
        """y[n, u, v, (i·stride + j)·C + c] = x̄[n, c, u·stride + i − above, v·stride + j − left], x̄ = x and zeros."""
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
    """What becomes of images of such a shape."""
    P, Q = output_size(x, (1, x[1], *kernel), stride, padding)
    U, V = (n + -(-size // stride) - 1 for n, size in zip((P, Q), kernel, strict=True))
    return x[0], U, V, deep(x[1], stride)


def space_to_depth(on: Place, x: CudaArray, *, stride: int, padding: Padding, kernel: tuple[int, ...]) -> CudaArray:
    """Images [N,C,H,W] as the first convolution takes them; zeros around them included."""
    (_, C, H, W), storage = x.shape, storage_for(on.precision)
    y = on.empty(deep_shape(x.shape, stride=stride, padding=padding, kernel=kernel), storage.dtype)
    _, U, V, _ = y.shape
    grid = over_places(*y.shape)
    on.launch(
        SPACE_TO_DEPTH[storage.name], grid, x, storage.words(on, y), C, H, W, U, V, y.shape[3] // 4, grid.threads[1],
        stride, padding[0][0], padding[1][0],
    )  # fmt: skip
    return y


def _augment_deep(storage: Storage) -> GridKernel:
    store = storage.store

    def body(
        tile, u, n, lane, _, images, mean, shift, top, left, flip, y, C, H, W, U, V, words, lanes, stride, above,
        before, crop, factor, follows,
    ):  # fmt: skip
        """`augment` (section 4.1) and `space_to_depth` in one, a thread a block: from bytes to what conv1 reads."""
        v = np.int32(tile * lanes + lane)
        if v >= V:
            return
        mirrored = flip[n] == 1
        image, shifts = np.uint64(n) * np.uint64(np.uint32(np.int32(C * H) * W)), np.int32(n * C)
        plane = np.uint32(H * W)
        taken_plane = plane if follows else np.uint32(crop * crop)
        o = image_at(n, U, V, words) + word_at(u, v, 0, V, words)
        word = ZEROS
        many = np.int32(0)
        for i in range(stride):
            row = np.int32(np.int32(u * stride) + i - above)
            for j in range(stride):
                column = np.int32(np.int32(v * stride) + j - before)
                inside = 0 <= row < crop and 0 <= column < crop
                there = np.int32(left[n] + (crop - 1 - column if mirrored else column))
                at = np.uint32(np.int32(np.int32(top[n] + row) * W) + there)
                taken = at if follows else np.uint32(np.int32(row * crop) + column)
                for c in range(C):
                    value = _ZERO
                    if inside:
                        pixel = np.float32(images[image + np.uint64(at)])
                        value = factor * (pixel + shift[np.uint32(shifts + c)] - mean[taken])
                        at = np.uint32(at + plane)
                        taken = np.uint32(taken + taken_plane)
                    word = word[1], word[2], word[3], value
                    many = np.int32(many + 1)
                    if many & np.int32(3) == 0:
                        store(y, o, *word)
                        o += np.uint64(1)
        for _ in range(many, np.int32(4 * words)):  # channels that fill up a multiple of eight
            word = word[1], word[2], word[3], _ZERO
            many = np.int32(many + 1)
            if many & np.int32(3) == 0:
                store(y, o, *word)
                o += np.uint64(1)

    return GridKernel(f"augment_deep_{storage.name}", ("y",), body)


AUGMENT_DEEP = {storage.name: _augment_deep(storage) for storage in STORAGES}


def augment_deep(
    on: Place, images: CudaArray, mean: CudaArray, shift: CudaArray, top: CudaArray, left: CudaArray, flip: CudaArray,
    *, crop: int, factor: float, mean_follows: bool, stride: int, padding: Padding, kernel: tuple[int, ...],
) -> CudaArray:  # fmt: skip
    """`minialex_cuda.ops.augment.augment`, and `space_to_depth` of what it gives."""
    (N, C, H, W), storage = images.shape, storage_for(on.precision)
    y = on.empty(deep_shape((N, C, crop, crop), stride=stride, padding=padding, kernel=kernel), storage.dtype)
    _, U, V, _ = y.shape
    grid = in_rows(V, U, N)
    on.launch(
        AUGMENT_DEEP[storage.name], grid, images, mean, shift, top, left, flip, storage.words(on, y), C, H, W, U, V,
        y.shape[3] // 4, grid.threads[0], stride, padding[0][0], padding[1][0], crop, np.float32(factor), mean_follows,
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

    def body(tile, tap, k, lane, _, w, y, C, R, S, across, words, stride, lanes):
        """y[k, r', s', (i·stride + j)·C + c] = w[k, c, r'·stride + i, s'·stride + j], zeros beyond."""
        word = np.int32(tile * lanes + lane)
        if word < words:
            row = np.int32(tap // across)
            r, s = np.int32(row * stride), np.int32(np.int32(tap - row * across) * stride)
            taps = np.int32(((R + stride - 1) // stride) * across)
            found = _taps((w, k, C, R, S, r, s), word, C, stride)
            store(y, np.uint64(np.uint32((k * taps + tap) * words + word)), *found)

    return GridKernel(f"kernels_last_{storage.name}", ("y",), body)


def _kernels_first(storage: Storage) -> GridKernel:
    one = storage.one

    def body(tile, k, _, lane, __, y, dw, C, R, S, down, across, channels, stride, lanes):
        """The inverse of `kernels_last`: dw[k, c, r, s], float32; a thread has all of a channel."""
        c = np.int32(tile * lanes + lane)
        if c >= C:
            return
        at = np.uint32(np.int32(k * C + c) * np.int32(R * S))
        row = np.int32(k * down)
        i = np.int32(0)
        for _ in range(R):
            tap = np.int32(row * across)
            j = np.int32(0)
            for _ in range(S):
                dw[at] = one(y, np.uint32(tap * channels + np.int32(i * stride + j) * C + c))
                at = np.uint32(at + np.uint32(1))
                j = np.int32(j + 1)
                if j == stride:
                    j = np.int32(0)
                    tap = np.int32(tap + 1)
            i = np.int32(i + 1)
            if i == stride:
                i = np.int32(0)
                row = np.int32(row + 1)

    return GridKernel(f"kernels_first_{storage.name}", ("dw",), body)


KERNELS_LAST = {storage.name: _kernels(storage) for storage in STORAGES}
KERNELS_FIRST = {storage.name: _kernels_first(storage) for storage in STORAGES}


def _shape_last(w: tuple[int, ...], stride: int, deepened: bool) -> tuple[int, int, int, int]:
    K, C, R, S = w
    return (K, -(-R // stride), -(-S // stride), deep(C, stride)) if deepened else (K, R, S, C)


def kernels_last(on: Place, w: CudaArray, storage: Storage, stride: int, deepened: bool) -> CudaArray:
    """Weights [K,C,R,S] as [K,R,S,C], or as `space_to_depth` orders them."""
    K, C, R, S = w.shape
    y = on.scratch(_shape_last(w.shape, stride, deepened), storage.dtype)
    words, taps = y.shape[3] // 4, y.shape[1] * y.shape[2]
    grid = in_rows(words, taps, K, most=64)
    on.launch(
        KERNELS_LAST[storage.name], grid, w, storage.words(on, y), C, R, S, y.shape[2], words,
        stride if deepened else 1, grid.threads[0],
    )  # fmt: skip
    return y


def kernels_first(on: Place, y: CudaArray, dw: CudaArray, stride: int, deepened: bool) -> None:
    """The inverse, into `dw`."""
    K, C, R, S = dw.shape
    grid = in_rows(C, K, most=64)
    on.launch(
        KERNELS_FIRST[storage_of(y).name], grid, y, dw, C, R, S, *y.shape[1:], stride if deepened else 1,
        grid.threads[0],
    )  # fmt: skip


# ---- bias, ReLU, and their gradients --------------------------------------------------------------------------


def _bias(source: Storage, storage: Storage) -> GridKernel:
    load, store = source.load, storage.store

    def body(tile, _, __, c, place, x, b, y, first, places, many, words, rectify):
        """y[first + place, k] = x[place, k] + b[k]; at least 0 if asked."""
        p = np.uint64(tile) * np.uint64(many) + np.uint64(place)
        if p >= np.uint64(places):
            return
        k = np.uint32(4 * c)
        shift = b[k], b[np.uint32(k + 1)], b[np.uint32(k + 2)], b[np.uint32(k + 3)]
        found = plus(load(x, p * np.uint64(words) + np.uint64(c)), shift)
        if rectify:
            found = larger(found, ZEROS)
        store(y, (np.uint64(first) + p) * np.uint64(words) + np.uint64(c), *found)

    return GridKernel(f"bias_{source.name}_{storage.name}", ("y",), body)


BIAS = {(source.name, storage.name): _bias(source, storage) for source, storage in PAIRS}


def add_bias(on: Place, x: CudaArray, b: CudaArray, y: CudaArray, first: int, places: int, rectify: bool) -> None:
    """Places of y from one on, from products [places, K]; x may be y."""
    source, storage, K = storage_of(x), storage_of(y), b.size
    grid = over_places(1, 1, places, K)
    on.launch(
        BIAS[source.name, storage.name], grid, source.words(on, x), b, storage.words(on, y), first, places,
        grid.threads[1], K // 4, rectify,
    )  # fmt: skip


EACH = 32
"""Places of a block that one of its threads adds up in `bias_gradient`."""


def _mask_sums(storage: Storage, masks: bool) -> GridKernel:
    load, store = storage.load, storage.store

    def first(tile, _, __, c, place, shared, dy, y, out, sums, places, many, words):
        """out = dy where y > 0, else 0 (where there is a ReLU), and of it the sums over a block's places."""
        total = ZEROS
        begin = np.uint64(tile) * np.uint64(32 * many) + np.uint64(place)
        for step in range(32):
            p = begin + np.uint64(step) * np.uint64(many)
            if p < np.uint64(places):
                j = p * np.uint64(words) + np.uint64(c)
                found = load(dy, j)
                if masks:
                    found = masked(found, load(y, j))
                    store(out, j, *found)
                total = plus(total, found)
        t = np.uint32(4 * (place * words + c))
        for m in range(4):
            shared[np.uint32(t + m)] = total[m]
        return t

    def second(tile, _, __, c, place, shared, t, dy, y, out, sums, places, many, words):
        if place == 0:
            k = np.uint32(4 * c)
            for m in range(4):
                total = _ZERO
                for other in range(many):
                    total += shared[np.uint32(4 * (other * words + c) + m)]
                sums[np.uint64(tile) * np.uint64(4 * words) + np.uint64(np.uint32(k + m))] = total

    return GridKernel(f"{'mask' if masks else 'bias'}_sums_{storage.name}", ("out", "sums"), first, second)


def _column_sums(tile, _, __, lane, ___, sums, total, blocks, K, lanes):
    """total[k] = Σ of a column."""
    k = np.int32(tile * lanes + lane)
    if k < K:
        added = _ZERO
        for block in range(blocks):
            added += sums[np.uint64(block) * np.uint64(K) + np.uint64(k)]
        total[np.uint32(k)] = added


MASK_SUMS = {(s.name, masks): _mask_sums(s, masks) for s in STORAGES for masks in (False, True)}
COLUMN_SUMS = GridKernel("column_sums", ("total",), _column_sums)


def bias_gradient(on: Place, dy: CudaArray, relu: CudaArray | None, db: CudaArray | None) -> CudaArray:
    """dy, or the gradient of the ReLU whose result is `relu`, and in db its sums over all places, if asked for."""
    storage, K, places = storage_of(dy), dy.shape[3], math.prod(dy.shape[:3])
    if relu is None and db is None:
        return dy
    grid = over_places(1, 1, places, K, shared=4)
    blocks = -(-places // (EACH * max(grid.threads[1], 1)))
    grid = Grid((blocks, 1, 1), grid.threads, grid.shared)
    out = dy if relu is None else on.scratch(dy.shape, dy.dtype)
    sums = on.scratch((max(blocks, 1), K), np.float32)
    arrays = [storage.words(on, array) for array in (dy, relu or dy, out)]
    read, written = (arrays[:1], [sums]) if relu is None else (arrays[:2], [arrays[2], sums])
    on.launch(
        MASK_SUMS[storage.name, relu is not None], grid, *arrays, sums, places, grid.threads[1], K // 4,
        touched=(read, written),
    )  # fmt: skip
    if db is not None:
        grid = in_rows(K, most=64)
        on.launch(COLUMN_SUMS, grid, sums, db, blocks, K, grid.threads[0])
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
        """dx[first + n, h, w, c] = Σ over the patches that hold it of back[n, p, q, r, s, c]."""
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
    """Some images of dy as the rows of a matrix [places, K] in float32."""
    _, P, Q, K = dy.shape
    rows = on.scratch((images * P * Q, K), np.float32)
    convert(on, dy, rows, first * P * Q * K)
    return rows


class _Layer:
    """The numbers of a convolution of maps with the channels last: of x, of w in that order, of y."""

    def __init__(self, x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: Padding, deepened: bool) -> None:
        self.N, self.H, self.W, self.C = x
        self.K, self.R, self.S, _ = _shape_last(w, stride, deepened)
        self.stride, self.padding = (1, NONE) if deepened else (stride, padding)
        first = (self.N, self.C, self.H, self.W), (self.K, self.C, self.R, self.S)
        self.P, self.Q = output_size(*first, self.stride, self.padding)
        self.depth = self.R * self.S * self.C
        self.places = self.P * self.Q

    def asked(self, on: Place, kind: Kind) -> Convolution:
        """It, as a library is asked."""
        return Convolution(
            kind, self.N, self.C, self.H, self.W, self.K, self.R, self.S, self.P, self.Q, self.stride, self.padding,
            on.precision, last=True,
        )  # fmt: skip

    def pieces(self) -> list[tuple[int, int]]:
        """As `minialex_cuda.ops.conv2d.pieces`."""
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
        """Patches of some images, or back from them."""
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
    """y[k] = b[k] + w[k] · patches; with `rectify` what is negative is cut as the bias is added.

    A library that can adds the bias, in x's format, to sums that are not rounded yet. `deepened`: x is what
    `space_to_depth` gave.
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
    """dx, dw and db; with `relu` the gradient of the ReLU whose result that is comes first."""
    db = on.empty((w.shape[0],), w.dtype)
    dy = bias_gradient(on, dy, relu, db)
    dx = _dx(on, dy, x, w, stride, padding) if need_dx else None
    return dx, _dw(on, dy, x, w, stride, padding, deepened), db


def conv2d_dx(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding,
) -> CudaArray:  # fmt: skip
    """The first of the gradients; of x only the shape counts."""
    return _dx(on, bias_gradient(on, dy, relu, None), x, w, stride, padding)


def conv2d_dw(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding, deepened: bool = False,
) -> tuple[CudaArray, CudaArray]:  # fmt: skip
    """The gradients of the weights and of the bias; of w only the shape counts."""
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
