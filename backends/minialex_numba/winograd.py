# mypy: disable-error-code="no-untyped-def"
"""Winograd's convolutions: square kernels of r × r at stride 1, in tiles of m × m outputs.

A tile of the input and a kernel are each transformed to n × n numbers, n = m + r − 1; there the convolution is a
product number by number, and summed over channels it is n² matrix products of ordinary size: [tiles, C] times [C, K]. In
place of m²·r² multiplications a tile and pair of channels takes n². The gradient of the input is the convolution of
dy by the turned kernels; that of the weights is the same with m and r in each other's place: tiles of dy are the kernels.

The rounding error is larger than a plain sum's (`minialex_numba.winograd_matrices`), and a tile's largest numbers
make it for all of the tile: so operations called one by one do without, and compiled steps use it.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional
neural networks", CVPR 2016.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from minialex_numba import simd
from minialex_numba.direct import gather, pack_kernel
from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool
from minialex_numba.products import finish, lanes, narrowest, row_table, up
from minialex_numba.vectors import ROWS, ROWS_ACROSS, tile_across, tile_along, transform

TILES = {3: 5, 5: 4}
"""For kernels of r × r, the m of the tiles (see `winograd_matrices.POINTS`)."""
CACHE = 6 << 20
"""Bytes of transformed tiles that one thread works on at a time."""
CHUNK = 20 << 20
"""Bytes of transformed tiles that all threads work on at a time, for the gradient of the weights."""

INPUT, KERNEL, OUTPUT = 0, 1, 2


@lru_cache
def _kernels(m: int, r: int) -> dict[str, Any]:
    """The kernels of one size; m and r are constants in them."""

    @kernel
    def transform_weights(worker, begin, end, packed, C, blocks, out, wide, scratch):
        """Kernels from the order of `pack_kernel` to out[frequency][block][c][k in block]; items are (block, c)."""
        n = m + r - 1
        lane = simd.lanes(packed)
        rows = worker * n * n * lane
        for item in range(begin, end):
            block, c = divmod(item, C)
            for v in range(0, wide, lane):
                for j in range(r):
                    transform(
                        KERNEL, m, r, scratch, rows + j * lane, r * lane,
                        packed, ((block * r * r + j) * C + c) * wide + v, r * C * wide,
                    )  # fmt: skip
                for i in range(n):
                    transform(
                        KERNEL, m, r, out, ((i * n * blocks + block) * C + c) * wide + v, blocks * C * wide,
                        scratch, rows + i * r * lane, lane,
                    )  # fmt: skip

    @kernel
    def forward(
        worker, begin, end, x, x0, ldx, H, W, C, top, left, weights, K, bias, relu, like, like0, ldlike, masked,
        y, y0, ldy, P, Q, chunk, table, wide, scratch, room
    ):  # fmt: skip
        """Items are rows of tiles, image after image; `chunk` of them are transformed at a time."""
        n = m + r - 1
        lane = simd.lanes(x)
        Cp = (C + lane - 1) // lane * lane
        Kp = (K + wide - 1) // wide * wide
        down, across = (P + m - 1) // m, (Q + m - 1) // m
        columns = across * m + r - 1
        most = (chunk * across + ROWS - 1) // ROWS * ROWS
        image = worker * room
        small = image + n * columns * Cp
        inputs = small + 2 * n * n * lane
        size_in = most * Cp + lane
        outputs = inputs + n * n * size_in
        size_out = most * Kp + lane
        for first in range(begin, end, chunk):
            last = min(first + chunk, end)
            tiles = (last - first) * across
            for item in range(first, last):
                picture, p = divmod(item, down)
                gather(
                    x,
                    x0 + picture * H * W * ldx,
                    ldx,
                    H,
                    W,
                    C,
                    top,
                    left,
                    1,
                    p * m,
                    p * m + n,
                    columns,
                    scratch,
                    image,
                    Cp,
                )
                for q in range(across):
                    t = inputs + ((item - first) * across + q) * Cp
                    for c in range(0, Cp, lane):
                        a = image + q * m * Cp + c
                        for j in range(n):
                            transform(
                                INPUT, m, r, scratch, small + j * lane, n * lane, scratch, a + j * Cp, columns * Cp
                            )
                        for i in range(n):
                            transform(
                                INPUT,
                                m,
                                r,
                                scratch,
                                t + i * n * size_in + c,
                                size_in,
                                scratch,
                                small + i * n * lane,
                                lane,
                            )
            for f in range(n * n):
                for k in range(0, Kp, wide):
                    b = (f * Kp + k) * C
                    for row in range(0, tiles, ROWS):
                        tile_along(
                            scratch, table, row, inputs + f * size_in, 1, 0, C, weights, b,
                            scratch, outputs + f * size_out + row * Kp + k, Kp, 0, wide,
                        )  # fmt: skip
            for item in range(first, last):
                picture, p = divmod(item, down)
                high = min(m, P - p * m)
                for q in range(across):
                    t = outputs + ((item - first) * across + q) * Kp
                    broad = min(m, Q - q * m)
                    place = (picture * P + p * m) * Q + q * m
                    for k in range(0, K, lane):
                        for j in range(n):
                            transform(
                                OUTPUT,
                                m,
                                r,
                                scratch,
                                small + j * lane,
                                n * lane,
                                scratch,
                                t + j * size_out + k,
                                n * size_out,
                            )
                        for i in range(high):
                            transform(
                                OUTPUT, m, r, scratch, small + n * n * lane, lane, scratch, small + i * n * lane, lane
                            )
                            for j in range(broad):
                                a = small + (n * n + j) * lane
                                b = y0 + (place + i * Q + j) * ldy + k
                                d = like0 + (place + i * Q + j) * ldlike + k
                                finish(y, b, scratch, a, bias, k, relu, like, d, masked, K - k)

    @kernel
    def transform_inputs(
        worker, begin, end, first, x, x0, ldx, H, W, C, top, left, down, across, most, Cp, out, scratch, room
    ):  # fmt: skip
        """Tiles of x to out[frequency][tile][c]; items are rows of tiles, counted from `first`."""
        n = m + r - 1
        lane = simd.lanes(x)
        columns = across * m + r - 1
        image = worker * room
        small = image + n * columns * Cp
        size = most * Cp + lane
        for item in range(begin, end):
            picture, p = divmod(first + item, down)
            gather(
                x, x0 + picture * H * W * ldx, ldx, H, W, C, top, left, 1, p * m, p * m + n, columns, scratch, image, Cp
            )
            for q in range(across):
                t = (item * across + q) * Cp
                for c in range(0, Cp, lane):
                    a = image + q * m * Cp + c
                    for j in range(n):
                        transform(INPUT, m, r, scratch, small + j * lane, n * lane, scratch, a + j * Cp, columns * Cp)
                    for i in range(n):
                        transform(INPUT, m, r, out, t + i * n * size + c, size, scratch, small + i * n * lane, lane)

    @kernel
    def transform_slopes(
        worker, begin, end, first, dy, dy0, lddy, P, Q, K, down, across, most, Kp, out, bias, scratch, room
    ):  # fmt: skip
        """Tiles of dy, as the kernels of F(r, m), to out[frequency][tile][k]; and their sums, for the biases, a row each."""
        n = m + r - 1
        lane = simd.lanes(dy)
        columns = across * m
        image = worker * room
        small = image + m * columns * Kp
        size = most * Kp + lane
        for item in range(begin, end):
            picture, p = divmod(first + item, down)
            gather(
                dy, dy0 + picture * P * Q * lddy, lddy, P, Q, K, 0, 0, 1, p * m, p * m + m, columns, scratch, image, Kp
            )
            b = (first + item) * Kp
            for k in range(0, Kp, lane):
                total = simd.spread(dy, 0)
                for place in range(m * columns):
                    total = total + simd.load(scratch, image + place * Kp + k, simd.WHOLE)
                simd.store(bias, b + k, total, simd.WHOLE)
            for q in range(across):
                t = (item * across + q) * Kp
                for k in range(0, Kp, lane):
                    a = image + q * m * Kp + k
                    for j in range(m):
                        transform(KERNEL, r, m, scratch, small + j * lane, m * lane, scratch, a + j * Kp, columns * Kp)
                    for i in range(n):
                        transform(KERNEL, r, m, out, t + i * n * size + k, size, scratch, small + i * m * lane, lane)

    @kernel
    def transform_gradient(worker, begin, end, sums, C, Crows, Kp, dw, k0, K, scratch):
        """dw [k,C,r,r] of the kernels k0 … k0 + K − 1 from sums[frequency][c][k]; items are the c."""
        n = m + r - 1
        lane = simd.lanes(sums)
        small = worker * (n + r) * n * lane
        done = small + n * n * lane
        for c in range(begin, end):
            for k in range(k0 // lane * lane, k0 + K, lane):
                for j in range(n):
                    transform(
                        OUTPUT, r, m, scratch, small + j * lane, n * lane,
                        sums, (j * Crows + c) * Kp + k, n * Crows * Kp,
                    )  # fmt: skip
                for i in range(r):
                    transform(OUTPUT, r, m, scratch, done + i * r * lane, lane, scratch, small + i * n * lane, lane)
                for place_k in range(max(k, k0), min(k + lane, k0 + K)):
                    b = ((place_k - k0) * C + c) * r * r
                    for place in range(r * r):
                        dw[b + place] = scratch[done + place * lane + place_k - k]

    return {
        "weights": transform_weights,
        "forward": forward,
        "inputs": transform_inputs,
        "slopes": transform_slopes,
        "gradient": transform_gradient,
    }


@kernel
def multiply_kernel(
    worker, begin, end, inputs, size_in, Cp, C, Crows, slopes, size_out, Kp, tiles, parts, sums, accumulate, wide
):  # fmt: skip
    """sums[frequency] [c,k] (+)= Σ_tiles inputs · slopes; items are (frequency, part of the channels)."""
    blocks = Crows // ROWS_ACROSS
    for item in range(begin, end):
        f, part = divmod(item, parts)
        for k in range(0, Kp, wide):
            for block in range(part * blocks // parts, (part + 1) * blocks // parts):
                c = block * ROWS_ACROSS
                tile_across(
                    inputs, f * size_in + c, 0, Cp, slopes, f * size_out + k, 0, Kp, 1, tiles,
                    sums, (f * Crows + c) * Kp + k, Kp, accumulate, wide,
                )  # fmt: skip


@kernel
def bias_kernel(worker, begin, end, bias, rows, Kp, k0, db):
    """db[k] = Σ_rows bias[row, k0 + k]; items are the k."""
    for k in range(begin, end):
        db[k] = 0
    for row in range(rows):
        for k in range(begin, end):
            db[k] += bias[row * Kp + k0 + k]


def fits(R: int, S: int, stride: int, C: int, K: int) -> bool:
    """Whether there are tiles for such a convolution, and enough channels for them to pay."""
    return R == S and R in TILES and stride == 1 and C >= 8 and K >= 8


class Convolution:
    """As `direct.Convolution`, for stride 1."""

    def __init__(
        self,
        pool: Pool,
        N: int,
        C: int,
        H: int,
        W: int,
        K: int,
        r: int,
        top: int,
        left: int,
        P: int,
        Q: int,
        dtype: Any,
    ) -> None:
        self.pool, self.K, self.r, self.m = pool, K, r, TILES[r]
        n = self.m + r - 1
        self.x, self.y = (H, W, C, top, left), (P, Q)
        lane = lanes(dtype)
        self.wide = wide = narrowest(K, dtype)
        down, across = -(-P // self.m), -(-Q // self.m)
        Cp, Kp = up(C, lane), up(K, wide)
        self.items = N * down
        bytes_a_tile = n * n * (Cp + Kp) * np.dtype(dtype).itemsize
        self.chunk = _chunk(max(1, min(CACHE // bytes_a_tile, -(-self.items * across // pool.threads))), across)
        most = up(self.chunk * across, ROWS)
        self.table = row_table(np.arange(most, dtype=np.int64) * Cp)
        columns = across * self.m + r - 1
        self.size = up(
            n * columns * Cp + 2 * n * n * lane + n * n * (most * Cp + lane) + n * n * (most * Kp + lane), 16
        )
        self.blocks = Kp // wide
        self.weights = n * n * self.blocks * C * wide
        self.packed = r * r * self.blocks * C * wide
        self.work = max(self.packed + pool.threads * n * n * lane, pool.threads * self.size)
        self.nothing = np.zeros(Kp, dtype)

    def use(self, packed: Floats, scratch: Floats) -> None:
        """Keep transformed weights in a memory of `weights` numbers, and work in one of `work` numbers."""
        self.memory, self.scratch = packed, scratch

    def pack(self, ws: list[Floats], shape: tuple[int, int, int, int], turned: bool) -> None:
        """Weights [k,C,r,r] whose kernels stand one after another; `turned` for the gradient of the input."""
        k, C = shape[:2]
        packed, scratch = self.scratch[: self.packed], self.scratch[self.packed :]
        if (C if turned else k * len(ws)) % self.wide:
            packed[:] = 0
        for i, w in enumerate(ws):
            self.pool.run(pack_kernel, k, w, C, self.r, self.r, turned, packed, i * k, k * len(ws), self.wide, grain=8)
        depth = k * len(ws) if turned else C
        self.pool.run(
            _kernels(self.m, self.r)["weights"],
            self.blocks * depth,
            packed,
            depth,
            self.blocks,
            self.memory,
            self.wide,
            scratch,
            grain=8,
        )

    def run(
        self, x: Floats, x0: int, ldx: int, bias: Floats | None, relu: bool, y: Floats, y0: int, ldy: int,
        mask: tuple[Floats, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Flat arrays, and where their first numbers are; `bias` has as many numbers as `nothing`."""
        like, like0, ldlike = mask or (y, 0, 0)
        self.pool.run(
            _kernels(self.m, self.r)["forward"], self.items, x, x0, ldx, *self.x, self.memory, self.K,
            self.nothing if bias is None else bias, int(relu), like, like0, ldlike, int(mask is not None), y, y0, ldy,
            *self.y, self.chunk, self.table, self.wide, self.scratch, self.size, pieces=-(-self.items // self.chunk),
        )  # fmt: skip


def _chunk(most: int, across: int) -> int:
    """Rows of tiles at a time, so that at most `most` tiles fill the products' tiles of `ROWS` rows best."""

    def waste(rows: int) -> float:
        return up(rows * across, ROWS) / (rows * across)

    largest = max(1, most // across)
    return min(range(max(1, largest // 2), largest + 1), key=lambda rows: (round(waste(rows), 2), -rows))


class WeightGradient:
    """As `direct.WeightGradient`, for stride 1."""

    def __init__(
        self,
        pool: Pool,
        N: int,
        C: int,
        H: int,
        W: int,
        K: int,
        r: int,
        top: int,
        left: int,
        P: int,
        Q: int,
        dtype: Any,
    ) -> None:
        self.pool, self.C, self.K, self.r, self.m = pool, C, K, r, TILES[r]
        self.x, self.y = (H, W, C, top, left), (P, Q, K)
        m, n = self.m, self.m + r - 1
        lane = lanes(dtype)
        self.wide = narrowest(K, dtype)
        self.down, self.across = -(-P // m), -(-Q // m)
        self.Cp, self.Kp, self.Crows = up(C, lane), up(K, self.wide), up(C, ROWS_ACROSS)
        self.items = N * self.down
        itemsize = np.dtype(dtype).itemsize
        self.chunk = max(1, min(self.items, CHUNK // (n * n * (self.Cp + self.Kp) * itemsize * self.across)))
        self.most = self.chunk * self.across
        self.size_in, self.size_out = self.most * self.Cp + lane, self.most * self.Kp + lane
        x_room = n * (self.across * m + r - 1) * self.Cp + n * n * lane
        dy_room = m * self.across * m * self.Kp + n * m * lane
        self.size = up(max(x_room, dy_room, (n + r) * n * lane), 16)
        self.rooms = [
            n * n * self.size_in + up(ROWS_ACROSS, 16),
            n * n * self.size_out,
            n * n * self.Crows * self.Kp,
            self.items * self.Kp,
            pool.threads * self.size,
        ]
        self.room = sum(self.rooms)

    def use(self, memory: Floats) -> None:
        """Work in this memory of `room` numbers."""
        ends = np.cumsum(self.rooms)
        self.inputs, self.slopes, self.sums, self.bias, self.scratch = (
            memory[end - size : end] for end, size in zip(ends.tolist(), self.rooms, strict=True)
        )

    def run(
        self, dy: Floats, dy0: int, lddy: int, x: Floats, x0: int, ldx: int, dws: list[Floats], dbs: list[Floats]
    ) -> None:  # fmt: skip
        """Flat arrays, and where their first numbers are; the kernels' gradients go to dws and dbs one after another."""
        run, kernels, n = self.pool.run, _kernels(self.m, self.r), self.m + self.r - 1
        grid = self.down, self.across, self.most
        parts = max(1, min(self.Crows // ROWS_ACROSS, -(-8 * self.pool.threads // (n * n))))
        for first in range(0, self.items, self.chunk):
            items = min(self.chunk, self.items - first)
            run(
                kernels["inputs"],
                items,
                first,
                x,
                x0,
                ldx,
                *self.x,
                *grid,
                self.Cp,
                self.inputs,
                self.scratch,
                self.size,
            )
            run(
                kernels["slopes"], items, first, dy, dy0, lddy, *self.y, *grid, self.Kp, self.slopes, self.bias,
                self.scratch, self.size,
            )  # fmt: skip
            run(
                multiply_kernel, n * n * parts, self.inputs, self.size_in, self.Cp, self.C, self.Crows, self.slopes,
                self.size_out, self.Kp, items * self.across, parts, self.sums, int(first > 0), self.wide,
            )  # fmt: skip
        k0 = 0
        for dw, db in zip(dws, dbs, strict=True):
            run(
                kernels["gradient"],
                self.C,
                self.sums,
                self.C,
                self.Crows,
                self.Kp,
                dw,
                k0,
                db.size,
                self.scratch,
                grain=4,
            )
            run(bias_kernel, db.size, self.bias, self.items, self.Kp, k0, db, grain=64)
            k0 += db.size
