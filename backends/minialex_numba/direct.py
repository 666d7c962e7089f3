"""Convolution as matrix products whose patches are never copied: the tiles read them where they lie.

An image, with its zeros around it, is copied into scratch memory of the thread, channels last. There a patch is R runs
of S·C contiguous numbers, which is just what `vectors.tile_along` reads; and for the gradient of the weights a run's
numbers at one place are contiguous, which is what `vectors.tile_across` reads.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from minialex.backend.arrays import Padding
from minialex_numba import simd
from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool
from minialex_numba.products import finish, lanes, narrowest, row_table, up
from minialex_numba.vectors import ROWS, ROWS_ACROSS, tile_across, tile_along

FAR = 8
"""Rows of places whose products are summed up at a time for the gradient of the weights: they stay in the cache."""
GROUPS = 16
"""Into how many groups of images the gradient of the weights is cut; the same for any number of threads."""


@kernel
def clear(y, b, count):
    """y[b], … = 0."""
    zero = simd.spread(y, 0)
    for j in range(0, count, simd.lanes(y)):
        simd.store(y, b + j, zero, count - j)


@kernel
def copy_place(x, a, C, y, b, wide):
    """C numbers, and zeros up to `wide`."""
    for c in range(0, wide, simd.lanes(x)):
        simd.store(y, b + c, simd.load(x, a + c, C - c), wide - c)


@kernel
def gather(x, x0, ldx, H, W, C, top, left, dilation, first, last, columns, y, y0, wide):
    """Rows first … last − 1 of an image with zeros around it (and, dilated, between its places), `wide` ≥ C numbers a place."""
    for i in range(first, last):
        b = y0 + (i - first) * columns * wide
        row = i - top
        if row < 0 or row % dilation != 0 or row // dilation >= H:
            clear(y, b, columns * wide)
            continue
        a = x0 + (row // dilation) * W * ldx
        if dilation != 1:
            clear(y, b, columns * wide)
            for q in range(W):
                j = left + q * dilation
                if 0 <= j < columns:
                    copy_place(x, a + q * ldx, C, y, b + j * wide, wide)
            continue
        begin = min(max(left, 0), columns)
        end = max(min(left + W, columns), begin)
        clear(y, b, begin * wide)
        a += (begin - left) * ldx
        if ldx == C and wide == C:
            count = (end - begin) * C
            for j in range(0, count, simd.lanes(x)):
                simd.store(y, b + begin * C + j, simd.load(x, a + j, count - j), count - j)
        else:
            for j in range(end - begin):
                copy_place(x, a + j * ldx, C, y, b + (begin + j) * wide, wide)
        clear(y, b + end * wide, (columns - end) * wide)


@kernel
def pack_kernel(worker, begin, end, w, C, R, S, turned, packed, k0, K, wide):
    """Weights w [k,C,R,S] in the order that tiles read: packed[block][r, s, c][k in block].

    They are the kernels k0, k0 + 1, … of K. With `turned` they are those of the gradient of the input: packed[block][r,
    s, k][c in block], r and s counted from the other end. Items are the k.
    """
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


@kernel
def forward_kernel(
    worker, begin, end, x, x0, ldx, H, W, C, top, left, dilation, stride, packed, K, R, S, bias, relu, like, like0, ldlike,
    masked, y, y0, ldy, P, Q, groups, table, wide, scratch, room
):  # fmt: skip
    """Items are (image, group of blocks of kernels)."""
    lane = simd.lanes(x)
    blocks = (K + wide - 1) // wide
    rows, columns = (P - 1) * stride + R, (Q - 1) * stride + S
    image = worker * room
    tile = image + rows * columns * C
    gathered = -1
    for item in range(begin, end):
        n, group = divmod(item, groups)
        if n != gathered:
            gather(x, x0 + n * H * W * ldx, ldx, H, W, C, top, left, dilation, 0, rows, columns, scratch, image, C)
            gathered = n
        for block in range(group * blocks // groups, (group + 1) * blocks // groups):
            count = min(wide, K - block * wide)
            for place in range(0, P * Q, ROWS):
                tile_along(
                    scratch, table, place, image, R, columns * C, S * C,
                    packed, block * R * S * C * wide, scratch, tile, wide, 0, wide,
                )  # fmt: skip
                for i in range(min(ROWS, P * Q - place)):
                    k = block * wide
                    a = tile + i * wide
                    b = y0 + (n * P * Q + place + i) * ldy + k
                    d = like0 + (n * P * Q + place + i) * ldlike + k
                    for c in range(0, count, lane):
                        finish(y, b + c, scratch, a + c, bias, k + c, relu, like, d + c, masked, count - c)


@kernel
def weight_gradient_kernel(
    worker, begin, end, x, x0, ldx, N, H, W, C, top, left, stride, R, S, dy, dy0, lddy, K, P, Q, groups, partial, size,
    wide, scratch, room
):  # fmt: skip
    """Items are groups of images; each has its own sums, partial[group]: [R][S·C, rounded up][K, rounded up], then db."""
    Kp = (K + wide - 1) // wide * wide
    run = (S * C + ROWS_ACROSS - 1) // ROWS_ACROSS * ROWS_ACROSS
    rows, columns = (P - 1) * stride + R, (Q - 1) * stride + S
    image = worker * room
    slopes = image + rows * columns * C + ROWS_ACROSS
    for item in range(begin, end):
        out = item * size
        for i in range(size):
            partial[out + i] = 0
        for n in range(item * N // groups, (item + 1) * N // groups):
            gather(x, x0 + n * H * W * ldx, ldx, H, W, C, top, left, 1, 0, rows, columns, scratch, image, C)
            gather(dy, dy0 + n * P * Q * lddy, lddy, P, Q, K, 0, 0, 1, 0, P, Q, scratch, slopes, Kp)
            bias = out + R * run * Kp
            for k in range(0, Kp, simd.lanes(x)):
                total = simd.load(partial, bias + k, simd.WHOLE)
                for place in range(P * Q):
                    total = total + simd.load(scratch, slopes + place * Kp + k, simd.WHOLE)
                simd.store(partial, bias + k, total, simd.WHOLE)
            for p in range(0, P, FAR):
                far = min(FAR, P - p)
                for r in range(R):
                    for i in range(0, S * C, ROWS_ACROSS):
                        a = image + (p * stride + r) * columns * C + i
                        for k in range(0, Kp, wide):
                            tile_across(
                                scratch, a, stride * columns * C, stride * C, scratch, slopes + p * Q * Kp + k, Q * Kp, Kp,
                                far, Q, partial, out + (r * run + i) * Kp + k, Kp, 1, wide,
                            )  # fmt: skip


@kernel
def sum_kernel(worker, begin, end, partial, size, groups, C, R, S, Kp, run, k0, dw, db):
    """dw [k,C,R,S] and db of the kernels k0, k0 + 1, …: the groups' sums added in order. Items are the k."""
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
    """A convolution of x [N,H,W,C] by K kernels [R,S], or one that stands for a gradient (`dilation`)."""

    def __init__(
        self, pool: Pool, N: int, C: int, H: int, W: int, K: int, R: int, S: int, top: int, left: int, P: int, Q: int,
        stride: int, dilation: int, dtype: Any,
    ) -> None:  # fmt: skip
        self.pool, self.N, self.K, self.R, self.S = pool, N, K, R, S
        self.x = (H, W, C, top, left, dilation, stride)
        self.y = (P, Q)
        self.wide = wide = narrowest(K, dtype)
        rows, columns = (P - 1) * stride + R, (Q - 1) * stride + S
        blocks = -(-K // wide)
        self.groups = min(blocks, max(1, 4 * pool.threads // N))
        p, q = np.divmod(np.arange(P * Q, dtype=np.int64), Q)
        self.table = row_table((p * stride * columns + q * stride) * C)
        self.size = up(rows * columns * C + ROWS * wide, 16)
        self.weights, self.work = blocks * R * S * C * wide, pool.threads * self.size
        self.nothing = np.zeros(up(K, wide), dtype)

    def use(self, packed: Floats, scratch: Floats) -> None:
        """Keep packed weights in a memory of `weights` numbers, and work in one of `work` numbers."""
        self.packed, self.scratch = packed, scratch

    def pack(self, ws: list[Floats], shape: tuple[int, int, int, int], turned: bool) -> None:
        """Weights [k,C,R,S] whose kernels stand one after another; `turned` for the gradient of the input."""
        k, C, R, S = shape
        if (C if turned else k * len(ws)) % self.wide:
            self.packed[:] = 0
        for i, w in enumerate(ws):
            self.pool.run(pack_kernel, k, w, C, R, S, turned, self.packed, i * k, k * len(ws), self.wide, grain=8)

    def run(
        self, x: Floats, x0: int, ldx: int, bias: Floats | None, relu: bool, y: Floats, y0: int, ldy: int,
        mask: tuple[Floats, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Flat arrays, and where their first numbers are; `bias` has as many numbers as `nothing`."""
        like, like0, ldlike = mask or (y, 0, 0)
        self.pool.run(
            forward_kernel, self.N * self.groups, x, x0, ldx, *self.x, self.packed, self.K, self.R, self.S,
            self.nothing if bias is None else bias, int(relu), like, like0, ldlike, int(mask is not None), y, y0, ldy,
            *self.y, self.groups, self.table, self.wide, self.scratch, self.size,
        )  # fmt: skip


class WeightGradient:
    """Gradients of the weights and biases of K kernels [R,S] over x [N,H,W,C], from dy [N,P,Q,K]."""

    def __init__(
        self, pool: Pool, N: int, C: int, H: int, W: int, K: int, R: int, S: int, top: int, left: int, P: int, Q: int,
        stride: int, dtype: Any,
    ) -> None:  # fmt: skip
        self.pool, self.N, self.C, self.R, self.S = pool, N, C, R, S
        self.x = (N, H, W, C, top, left, stride, R, S)
        self.y = (K, P, Q)
        self.wide = narrowest(K, dtype)
        self.Kp = up(K, self.wide)
        self.run_length = up(S * C, ROWS_ACROSS)
        self.size = up(R * self.run_length * self.Kp + self.Kp, 16)
        # fewer groups where the weights are large: sums of 32 MB at most
        self.groups = max(1, min(N, GROUPS, (32 << 20) // (self.size * np.dtype(dtype).itemsize)))
        rows, columns = (P - 1) * stride + R, (Q - 1) * stride + S
        self.scratch_size = up(rows * columns * C + ROWS_ACROSS + P * Q * self.Kp, 16)
        self.room = self.groups * self.size + pool.threads * self.scratch_size + lanes(dtype)

    def use(self, memory: Floats) -> None:
        """Work in this memory of `room` numbers."""
        self.partial, self.scratch = memory[: self.groups * self.size], memory[self.groups * self.size : self.room]

    def run(
        self, dy: Floats, dy0: int, lddy: int, x: Floats, x0: int, ldx: int, dws: list[Floats], dbs: list[Floats]
    ) -> None:  # fmt: skip
        """Flat arrays, and where their first numbers are; the kernels' gradients go to dws and dbs one after another."""
        N, H, W, C, *rest = self.x
        self.pool.run(
            weight_gradient_kernel, self.groups, x, x0, ldx, N, H, W, C, *rest, dy, dy0, lddy, *self.y,
            self.groups, self.partial, self.size, self.wide, self.scratch, self.scratch_size, pieces=self.groups,
        )  # fmt: skip
        k0 = 0
        for dw, db in zip(dws, dbs, strict=True):
            self.pool.run(
                sum_kernel, db.size, self.partial, self.size, self.groups, self.C, self.R, self.S, self.Kp,
                self.run_length, k0, dw, db, grain=8,
            )  # fmt: skip
            k0 += db.size


def input_padding(padding: Padding, R: int, S: int) -> tuple[int, int]:
    """Rows above and columns left of dy when the gradient of the input is made as a convolution of dy."""
    return R - 1 - padding[0][0], S - 1 - padding[1][0]
