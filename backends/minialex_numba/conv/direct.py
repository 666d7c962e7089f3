"""Convolution as matrix products without im2col: the tiles read the patches in place.

An image and its zero padding are copied into the thread's scratch memory, channels last. There a patch is R runs of
S·C contiguous numbers, which is what `tiles.tile_along` reads; for the gradient of the weights, a run's numbers at one
position are contiguous, which is what `tiles.tile_across` reads.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minialex.backend.arrays import Padding
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.layout import Floats, Rows
from minialex_numba.runtime.threads import Threads
from minialex_numba.runtime.tiles import (
    ROWS,
    ROWS_ACROSS,
    finish,
    lanes,
    narrowest,
    row_table,
    tile_across,
    tile_along,
    up,
)
from minialex_numba.runtime.vector import WHOLE, load, spread, store
from minialex_numba.runtime.vector import lanes as vector_lanes

FAR = 8
"""Rows of positions summed at a time for the gradient of the weights, so that they stay in the cache."""
GROUPS = 16
"""Number of groups of images into which the gradient of the weights is split; the same for any number of threads."""


class Geometry(NamedTuple):
    """The sizes of a convolution of x [N,C,H,W] with K kernels [R,S] to y [N,K,P,Q].

    Attributes:
        top: rows of zero padding above the image; below it there are as many as are read
        left: columns of zero padding to its left
        dilation: distance between the image's pixels, with zeros between them: in a gradient, the stride
    """

    N: int
    C: int
    H: int
    W: int
    K: int
    R: int
    S: int
    top: int
    left: int
    P: int
    Q: int
    stride: int = 1
    dilation: int = 1

    @property
    def of_input_gradient(self) -> Geometry:
        """The convolution that gives the gradient of x: dilated dy with the kernels rotated by 180°."""
        N, C, H, W, K, R, S, top, left, P, Q, stride, _ = self
        return Geometry(N, K, P, Q, C, R, S, R - 1 - top, S - 1 - left, H, W, 1, stride)


def geometry(
    x: tuple[int, ...], y: tuple[int, ...], kernel_size: tuple[int, ...], stride: int, padding: Padding
) -> Geometry:
    """The sizes, from the shapes of x and y."""
    (N, C, H, W), (_, K, P, Q), (R, S) = x, y, kernel_size
    return Geometry(N, C, H, W, K, R, S, padding[0][0], padding[1][0], P, Q, stride)


@part
def clear(y, b, count):
    """y[b], … = 0."""
    zero = spread(y, 0)
    for j in range(0, count, vector_lanes(y)):
        store(y, b + j, zero, count - j)


@kernel
def clear_kernel(worker, begin, end, y):
    """y = 0; items are the numbers."""
    clear(y, begin, end - begin)


@part
def copy_pixel(x, a, C, y, b, wide):
    """Copy C numbers, and fill with zeros up to `wide`."""
    for c in range(0, wide, vector_lanes(x)):
        store(y, b + c, load(x, a + c, C - c), wide - c)


@part(literals=False)
def gather(x, size, top, left, dilation, first, last, across, y, y0, wide):
    """Copy rows first … last − 1, `across` pixels each, of an image padded with zeros (and dilated, if so) to y,
    `wide` ≥ C numbers per pixel; `size` is the image's (C, H, W)."""
    (x, x0, ldx), (C, H, W) = x, size
    for i in range(first, last):
        b = y0 + (i - first) * across * wide
        row = i - top
        if row < 0 or row % dilation != 0 or row // dilation >= H:
            clear(y, b, across * wide)
            continue
        a = x0 + (row // dilation) * W * ldx
        if dilation != 1:
            clear(y, b, across * wide)
            for q in range(W):
                j = left + q * dilation
                if 0 <= j < across:
                    copy_pixel(x, a + q * ldx, C, y, b + j * wide, wide)
            continue
        begin = min(max(left, 0), across)
        end = max(min(left + W, across), begin)
        clear(y, b, begin * wide)
        a += (begin - left) * ldx
        if ldx == C and wide == C:
            count = (end - begin) * C
            for j in range(0, count, vector_lanes(x)):
                store(y, b + begin * C + j, load(x, a + j, count - j), count - j)
        else:
            for j in range(end - begin):
                copy_pixel(x, a + j * ldx, C, y, b + (begin + j) * wide, wide)
        clear(y, b + end * wide, (across - end) * wide)


@kernel
def pack_kernel(worker, begin, end, w, shape, turned, packed, k0, K, wide):
    """Pack weights w, each of shape (C, R, S), in the order that tiles read: packed[block][r, s, c][k in block].

    They are kernels k0, k0 + 1, … of K. With `turned` they are packed for the gradient of the input:
    packed[block][r, s, k][c in block], with r and s counted from the other end. Items are the k.
    """
    C, R, S = shape
    for k in range(begin, end):
        for c in range(C):
            a = (k * C + c) * R * S
            if turned:
                b = (c // wide) * R * S * K * wide + (k0 + k) * wide + c % wide
                for place in range(R * S):
                    packed[b + (R * S - 1 - place) * K * wide] = w[a + place]
            else:
                b = ((k0 + k) // wide) * R * S * C * wide + c * wide + (k0 + k) % wide
                for place in range(R * S):
                    packed[b + place * C * wide] = w[a + place]


def pack(threads: Threads, ws: Sequence[Floats], turned: bool, packed: Floats, wide: int) -> None:
    """Pack weights [k,C,R,S], one array's kernels after another's; `turned` for the gradient of the input."""
    shape, K, k0 = ws[0].shape[1:], sum(map(len, ws)), 0
    if (shape[0] if turned else K) % wide:
        threads.run(clear_kernel, packed.size, packed, grain=1 << 16)
    for w in ws:
        threads.run(pack_kernel, len(w), w.reshape(-1), shape, turned, packed, k0, K, wide, grain=8)
        k0 += len(w)


@kernel
def forward_kernel(
    worker, begin, end, x, packed, bias, relu, like, masked, y, geometry, groups, table, wide, scratch, room
):  # fmt: skip
    """Items are (image, group of blocks of kernels)."""
    (x, x0, ldx), (like, like0, ldlike), (y, y0, ldy), g = x, like, y, Geometry(*geometry)
    C, K, R, S, PQ, size = g.C, g.K, g.R, g.S, g.P * g.Q, (g.C, g.H, g.W)
    lane = vector_lanes(x)
    blocks = (K + wide - 1) // wide
    rows, across = (g.P - 1) * g.stride + R, (g.Q - 1) * g.stride + S
    image = worker * room
    tile = image + rows * across * C
    gathered = -1
    for item in range(begin, end):
        n, group = divmod(item, groups)
        if n != gathered:
            source = (x, x0 + n * g.H * g.W * ldx, ldx)
            gather(source, size, g.top, g.left, g.dilation, 0, rows, across, scratch, image, C)
            gathered = n
        for block in range(group * blocks // groups, (group + 1) * blocks // groups):
            count = min(wide, K - block * wide)
            for place in range(0, PQ, ROWS):
                tile_along(
                    scratch, table, place, image, R, across * C, S * C,
                    packed, block * R * S * C * wide, scratch, tile, wide, 0, wide,
                )  # fmt: skip
                for i in range(min(ROWS, PQ - place)):
                    k = block * wide
                    a = tile + i * wide
                    b = y0 + (n * PQ + place + i) * ldy + k
                    d = like0 + (n * PQ + place + i) * ldlike + k
                    for c in range(0, count, lane):
                        finish(y, b + c, scratch, a + c, bias, k + c, relu, like, d + c, masked, count - c)


@kernel
def weight_gradient_kernel(worker, begin, end, x, dy, geometry, groups, partial, size, wide, scratch, room):
    """Items are groups of images, each with sums of its own, partial[group]: [R][S·C, padded][K, padded], then db."""
    (x, x0, ldx), (dy, dy0, lddy), g = x, dy, Geometry(*geometry)
    N, C, K, R, S, P, Q, stride = g.N, g.C, g.K, g.R, g.S, g.P, g.Q, g.stride
    Kp = (K + wide - 1) // wide * wide
    run = (S * C + ROWS_ACROSS - 1) // ROWS_ACROSS * ROWS_ACROSS
    rows, across = (P - 1) * stride + R, (Q - 1) * stride + S
    image = worker * room
    slopes = image + rows * across * C + ROWS_ACROSS
    for item in range(begin, end):
        out = item * size
        for i in range(size):
            partial[out + i] = 0
        for n in range(item * N // groups, (item + 1) * N // groups):
            source = (x, x0 + n * g.H * g.W * ldx, ldx)
            gather(source, (C, g.H, g.W), g.top, g.left, 1, 0, rows, across, scratch, image, C)
            gather((dy, dy0 + n * P * Q * lddy, lddy), (K, P, Q), 0, 0, 1, 0, P, Q, scratch, slopes, Kp)
            bias = out + R * run * Kp
            for k in range(0, Kp, vector_lanes(x)):
                total = load(partial, bias + k, WHOLE)
                for place in range(P * Q):
                    total = total + load(scratch, slopes + place * Kp + k, WHOLE)
                store(partial, bias + k, total, WHOLE)
            for p in range(0, P, FAR):
                far = min(FAR, P - p)
                for r in range(R):
                    for i in range(0, S * C, ROWS_ACROSS):
                        a = image + (p * stride + r) * across * C + i
                        for k in range(0, Kp, wide):
                            tile_across(
                                scratch, a, stride * across * C, stride * C, scratch, slopes + p * Q * Kp + k, Q * Kp, Kp,
                                far, Q, partial, out + (r * run + i) * Kp + k, Kp, 1, wide,
                            )  # fmt: skip


@kernel
def sum_kernel(worker, begin, end, partial, size, groups, shape, Kp, run, k0, dw, db):
    """Add the groups' sums in order to dw [k,C,R,S] and db of kernels k0, k0 + 1, …. Items are the k."""
    C, R, S = shape
    for k in range(begin, end):
        for c in range(C):
            for r in range(R):
                for s in range(S):
                    a = (r * run + s * C + c) * Kp + k0 + k
                    total = partial[a]
                    for group in range(1, groups):
                        total += partial[group * size + a]
                    dw[((k * C + c) * R + r) * S + s] = total
        a = R * run * Kp + k0 + k
        total = partial[a]
        for group in range(1, groups):
            total += partial[group * size + a]
        db[k] = total


class Convolution:
    """A convolution, or an input gradient computed as one: packs its weights, then runs.

    Attributes:
        weights: size of the memory for packed weights, in numbers
        work: size of the scratch memory, in numbers
        nothing: a bias of zeros, of the length that a bias must have
    """

    def __init__(self, threads: Threads, geometry: Geometry, dtype: Any) -> None:
        self.threads, self.geometry = threads, geometry
        N, C, _, _, K, R, S, _, _, P, Q, stride, _ = geometry
        self.wide = wide = narrowest(K, dtype)
        rows, across = (P - 1) * stride + R, (Q - 1) * stride + S
        blocks = -(-K // wide)
        self.groups = min(blocks, max(1, 4 * threads.count // max(N, 1)))
        p, q = np.divmod(np.arange(P * Q, dtype=np.int64), Q)
        self.table = row_table((p * stride * across + q * stride) * C)
        self.size = up(rows * across * C + ROWS * wide, 16)
        self.weights, self.work = blocks * R * S * C * wide, threads.count * self.size
        self.nothing = np.zeros(up(K, wide), dtype)

    def use(self, packed: Floats, scratch: Floats) -> None:
        """Set the memory for packed weights (`weights` numbers) and the scratch memory (`work` numbers)."""
        self.packed, self.scratch = packed, scratch

    def pack(self, ws: Sequence[Floats], turned: bool) -> None:
        """See `pack`."""
        pack(self.threads, ws, turned, self.packed, self.wide)

    def run(self, x: Rows, bias: Floats, relu: bool, y: Rows, mask: Rows | None = None) -> None:
        """Compute y. `bias` is as long as `nothing`; y is 0 where the `mask` is not positive."""
        self.threads.run(
            forward_kernel, self.geometry.N * self.groups, x, self.packed, bias, int(relu), mask or y,
            int(mask is not None), y, tuple(self.geometry), self.groups, self.table, self.wide, self.scratch, self.size,
        )  # fmt: skip


class WeightGradient:
    """Gradients of a convolution's weights and biases.

    Attributes:
        room: size of the scratch memory, in numbers
    """

    def __init__(self, threads: Threads, geometry: Geometry, dtype: Any) -> None:
        self.threads, self.geometry = threads, geometry
        N, C, _, _, K, R, S, _, _, P, Q, stride, _ = geometry
        self.wide = narrowest(K, dtype)
        self.Kp = up(K, self.wide)
        self.run_length = up(S * C, ROWS_ACROSS)
        self.size = up(R * self.run_length * self.Kp + self.Kp, 16)
        # fewer groups if the weights are large: at most 32 MiB of sums
        self.groups = max(1, min(N, GROUPS, (32 << 20) // max(1, self.size * np.dtype(dtype).itemsize)))
        rows, across = (P - 1) * stride + R, (Q - 1) * stride + S
        self.scratch_size = up(rows * across * C + ROWS_ACROSS + P * Q * self.Kp, 16)
        self.room = self.groups * self.size + threads.count * self.scratch_size + lanes(dtype)

    def use(self, memory: Floats) -> None:
        """Set the scratch memory, of `room` numbers."""
        self.partial, self.scratch = memory[: self.groups * self.size], memory[self.groups * self.size : self.room]

    def run(self, dy: Rows, x: Rows, dws: Sequence[Floats], dbs: Sequence[Floats]) -> None:
        """Write the kernels' gradients to the (flat) dws and the dbs, one array after another."""
        g = self.geometry
        self.threads.run(
            weight_gradient_kernel, self.groups, x, dy, tuple(g), self.groups, self.partial, self.size, self.wide,
            self.scratch, self.scratch_size, pieces=self.groups,
        )  # fmt: skip
        k0 = 0
        for dw, db in zip(dws, dbs, strict=True):
            self.threads.run(
                sum_kernel, db.size, self.partial, self.size, self.groups, (g.C, g.R, g.S), self.Kp, self.run_length,
                k0, dw, db, grain=8,
            )  # fmt: skip
            k0 += db.size
