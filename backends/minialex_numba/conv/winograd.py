# mypy: disable-error-code="no-untyped-def"
"""Winograd convolutions: square kernels of r × r at stride 1, in tiles of m × m outputs.

An input tile and a kernel are each transformed to n × n numbers, n = m + r − 1. There the convolution is an elementwise
product; summed over channels it becomes n² matrix products of ordinary size: [tiles, C] times [C, K]. A tile takes n²
multiplications per pair of channels instead of m²·r². The gradient of the input is the convolution of dy with the
kernels rotated by 180°; that of the weights is the same with m and r swapped: tiles of dy are the kernels.

The rounding error is larger than a plain sum's (`minialex_numba.conv.winograd_matrices`), and a tile's largest numbers
determine it for the whole tile. So only compiled steps use Winograd; operations called one by one do not.

The transforms are unrolled as LLVM instructions for each r in `TILES`, side by side in one kernel; everything around
them takes m and r as numbers, and is compiled once.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional
neural networks", CVPR 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from minialex_numba.conv.direct import Geometry, gather, pack
from minialex_numba.conv.winograd_matrices import INPUT, KERNEL, OUTPUT, Matrix, matrices
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
from minialex_numba.runtime.vector import (
    I64,
    WHOLE,
    Pointer,
    cgutils,
    fused_multiply_add,
    intrinsic,
    is_floats,
    load,
    spread,
    store,
)
from minialex_numba.runtime.vector import lanes as vector_lanes

TILES = {3: 5, 5: 4}
"""The m of the tiles for kernels of r × r (see `winograd_matrices.POINTS`)."""
SWAPPED = 3
"""Indices from this one on mean the matrices that `matrices` returns with m and r swapped."""
SLOPES, GRADIENT = SWAPPED + KERNEL, SWAPPED + OUTPUT
CACHE = 6 << 20
"""Bytes of transformed tiles that one thread works on at a time."""
CHUNK = 20 << 20
"""Bytes of transformed tiles that all threads together work on at a time, for the gradient of the weights."""
SMALL, NEAR = 2 << 20, 1 << 20
"""If the transformed weights take at most SMALL bytes, NEAR bytes of tiles are processed at a time, so that both stay
in a core's own cache; larger weights are read less often if more tiles share them. No result depends on it."""


@intrinsic(prefer_literal=True)
def transform_tile(
    typing: Any, which: Any, r: Any, high: Any, out: Any, out0: Any, out_row: Any, out_step: Any,
    x: Any, x0: Any, x_row: Any, x_step: Any, scratch: Any, small: Any,
) -> Any:  # fmt: skip
    """Compute matrix · tile · matrixᵀ for one vector of channels; for `OUTPUT`, only the first `high` rows.

    The matrix is that of `which` for kernels of r × r. The loops of every r are compiled, and r selects which run.
    """
    if not (is_floats(out) and out == x == scratch and isinstance(which, types.IntegerLiteral)):
        return None
    n = [types.intp] * 3
    signature = types.void(which, *n[1:], out, *n, x, *n, scratch, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, r, high, out_, out0, out_row, out_step, x_, x0, x_row, x_step, scratch_, small = arguments
        target, source, between = (Pointer(context, builder, out, array) for array in (out_, x_, scratch_))
        lane = ir.Constant(I64, target.vector.count)
        for size, m in TILES.items():
            matrix = _matrix(which.literal_value, m, size)
            broad = len(matrix[0])
            row = ir.Constant(I64, broad * target.vector.count)
            rows = high if which.literal_value == OUTPUT else ir.Constant(I64, len(matrix))
            with builder.if_then(builder.icmp_signed("==", r, ir.Constant(I64, size))):
                with cgutils.for_range(builder, ir.Constant(I64, broad)) as column:
                    place = builder.add(small, builder.mul(column.index, lane))
                    first = builder.add(x0, builder.mul(column.index, x_step))
                    _transform(matrix, between, place, row, source, first, x_row)
                with cgutils.for_range(builder, rows) as line:
                    place = builder.add(out0, builder.mul(line.index, out_row))
                    first = builder.add(small, builder.mul(line.index, row))
                    _transform(matrix, target, place, out_step, between, first, lane)
        return context.get_dummy_value()

    return signature, generate


def _matrix(which: int, m: int, r: int) -> Matrix:
    """The matrix of a transform; for the gradient of the weights, m and r are swapped."""
    return matrices(r, m)[which - SWAPPED] if which >= SWAPPED else matrices(m, r)[which]


def _transform(matrix: Matrix, out: Pointer, out0: Any, out_step: Any, x: Pointer, x0: Any, x_step: Any) -> None:
    """out[out0 + i·out_step + l] = Σ_j matrix[i, j] · x[x0 + j·x_step + l], for the lanes l of one vector."""
    builder = out.builder
    inputs = [x.load(builder.add(x0, builder.mul(x_step, ir.Constant(I64, j)))) for j in range(len(matrix[0]))]
    for i, row in enumerate(matrix):
        total = None
        for coefficient, value in zip(row, inputs, strict=True):
            if coefficient == 0:
                continue
            factor = out.fill(ir.Constant(out.number, float(coefficient)))
            if total is None:
                total = value if coefficient == 1 else builder.fmul(factor, value)
            elif coefficient == 1:
                total = builder.fadd(total, value)
            elif coefficient == -1:
                total = builder.fsub(total, value)
            else:
                total = fused_multiply_add(builder, factor, value, total)
        assert total is not None  # no row of these matrices is all zeros
        out.store(total, builder.add(out0, builder.mul(out_step, ir.Constant(I64, i))))


@part(inline="always")
def transform_row(which, m, r, x, size, top, left, first, step, broad, across, out, t, distance, wide, scratch, image):
    """Transform a row of `across` tiles of broad × broad pixels, `step` apart, from row `first` of an image on, to
    out[t + frequency · distance + tile · wide + channel], with `wide` channels each."""
    n = m + r - 1
    pixels = (across - 1) * step + broad
    gather(x, size, top, left, 1, first, first + broad, pixels, scratch, image, wide)
    for q in range(across):
        for c in range(0, wide, vector_lanes(scratch)):
            transform_tile(
                which, r, n, out, t + q * wide + c, n * distance, distance,
                scratch, image + q * step * wide + c, pixels * wide, wide, scratch, image + broad * pixels * wide,
            )  # fmt: skip


@kernel
def weights_kernel(worker, begin, end, m, r, packed, C, blocks, out, wide, scratch):
    """Transform kernels packed by `pack_kernel` to out[frequency][block][c][k in block]; items are (block, c)."""
    n = m + r - 1
    lane = vector_lanes(packed)
    small = worker * n * n * lane
    for item in range(begin, end):
        block, c = divmod(item, C)
        for v in range(0, wide, lane):
            transform_tile(
                KERNEL, r, n, out, (block * C + c) * wide + v, n * blocks * C * wide, blocks * C * wide,
                packed, (block * r * r * C + c) * wide + v, r * C * wide, C * wide, scratch, small,
            )  # fmt: skip


@kernel
def forward_kernel(
    worker, begin, end, m, r, x, weights, bias, relu, like, masked, y, geometry, chunk, table, wide, scratch, room
):  # fmt: skip
    """Items are rows of tiles, image after image, transformed `chunk` at a time."""
    (x, x0, ldx), (like, like0, ldlike), (y, y0, ldy), g = x, like, y, Geometry(*geometry)
    C, K, P, Q = g.C, g.K, g.P, g.Q
    n = m + r - 1
    lane = vector_lanes(x)
    Cp = (C + lane - 1) // lane * lane
    Kp = (K + wide - 1) // wide * wide
    down, across = (P + m - 1) // m, (Q + m - 1) // m
    most = (chunk * across + ROWS - 1) // ROWS * ROWS
    image = worker * room
    small = image + n * (across * m + r - 1) * Cp
    inputs = small + 2 * n * n * lane
    size_in = most * Cp + lane
    outputs = inputs + n * n * size_in
    size_out = most * Kp + lane
    for first in range(begin, end, chunk):
        last = min(first + chunk, end)
        tiles = (last - first) * across
        for item in range(first, last):
            picture, p = divmod(item, down)
            transform_row(
                INPUT, m, r, (x, x0 + picture * g.H * g.W * ldx, ldx), (C, g.H, g.W), g.top, g.left, p * m, m, n, across,
                scratch, inputs + (item - first) * across * Cp, size_in, Cp, scratch, image,
            )  # fmt: skip
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
                    result = small + n * n * lane
                    transform_tile(
                        OUTPUT, r, high, scratch, result, m * lane, lane,
                        scratch, t + k, n * size_out, size_out, scratch, small,
                    )  # fmt: skip
                    for i in range(high):
                        for j in range(broad):
                            a = result + (i * m + j) * lane
                            b = y0 + (place + i * Q + j) * ldy + k
                            d = like0 + (place + i * Q + j) * ldlike + k
                            finish(y, b, scratch, a, bias, k, relu, like, d, masked, K - k)


@kernel
def inputs_kernel(worker, begin, end, m, r, first, x, geometry, most, Cp, out, scratch, room):
    """Transform tiles of x to out[frequency][tile][c]; items are rows of tiles, counted from `first`."""
    (x, x0, ldx), g = x, Geometry(*geometry)
    n = m + r - 1
    down, across = (g.P + m - 1) // m, (g.Q + m - 1) // m
    for item in range(begin, end):
        picture, p = divmod(first + item, down)
        transform_row(
            INPUT, m, r, (x, x0 + picture * g.H * g.W * ldx, ldx), (g.C, g.H, g.W), g.top, g.left, p * m, m, n, across,
            out, item * across * Cp, most * Cp + vector_lanes(x), Cp, scratch, worker * room,
        )  # fmt: skip


@kernel
def slopes_kernel(worker, begin, end, m, r, first, dy, geometry, most, Kp, out, bias, scratch, room):
    """Transform tiles of dy, the kernels of F(r, m), to out[frequency][tile][k], and sum each row for the biases."""
    (dy, dy0, lddy), g = dy, Geometry(*geometry)
    lane = vector_lanes(dy)
    down, across = (g.P + m - 1) // m, (g.Q + m - 1) // m
    image = worker * room
    for item in range(begin, end):
        picture, p = divmod(first + item, down)
        transform_row(
            SLOPES, m, r, (dy, dy0 + picture * g.P * g.Q * lddy, lddy), (g.K, g.P, g.Q), 0, 0, p * m, m, m, across,
            out, item * across * Kp, most * Kp + lane, Kp, scratch, image,
        )  # fmt: skip
        for k in range(0, Kp, lane):
            total = spread(dy, 0)
            for place in range(m * m * across):
                total = total + load(scratch, image + place * Kp + k, WHOLE)
            store(bias, (first + item) * Kp + k, total, WHOLE)


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
def gradient_kernel(worker, begin, end, m, r, sums, C, Crows, Kp, dw, k0, K, scratch):
    """Compute dw [k,C,r,r] of kernels k0 … k0 + K − 1 from sums[frequency][c][k]; items are the c."""
    n = m + r - 1
    lane = vector_lanes(sums)
    small = worker * (n + r) * n * lane
    done = small + n * n * lane
    for c in range(begin, end):
        for k in range(k0 // lane * lane, k0 + K, lane):
            transform_tile(
                GRADIENT, r, r, scratch, done, r * lane, lane,
                sums, c * Kp + k, n * Crows * Kp, Crows * Kp, scratch, small,
            )  # fmt: skip
            for place_k in range(max(k, k0), min(k + lane, k0 + K)):
                b = ((place_k - k0) * C + c) * r * r
                for place in range(r * r):
                    dw[b + place] = scratch[done + place * lane + place_k - k]


@kernel
def bias_kernel(worker, begin, end, bias, rows, Kp, k0, db):
    """db[k] = Σ_rows bias[row, k0 + k]; items are the k."""
    for k in range(begin, end):
        db[k] = 0
    for row in range(rows):
        for k in range(begin, end):
            db[k] += bias[row * Kp + k0 + k]


def fits(geometry: Geometry) -> bool:
    """Whether Winograd tiles exist for such a convolution, and it has enough channels to make them worthwhile."""
    R, S, stride, dilation = geometry.R, geometry.S, geometry.stride, geometry.dilation
    return R == S and R in TILES and stride == dilation == 1 and geometry.C >= 8 and geometry.K >= 8


class Convolution:
    """Like `direct.Convolution`, for stride 1."""

    def __init__(self, threads: Threads, geometry: Geometry, dtype: Any) -> None:
        self.threads, self.geometry = threads, geometry
        N, C, _, _, K, r, _, _, _, P, Q, _, _ = geometry
        m = TILES[r]
        n = m + r - 1
        lane = lanes(dtype)
        self.wide = wide = narrowest(K, dtype)
        down, across = -(-P // m), -(-Q // m)
        Cp, Kp = up(C, lane), up(K, wide)
        self.items = N * down
        itemsize = np.dtype(dtype).itemsize
        bytes_a_tile = n * n * (Cp + Kp) * itemsize
        at_a_time = CACHE if n * n * C * Kp * itemsize > SMALL else NEAR
        self.chunk = _chunk(max(1, min(at_a_time // bytes_a_tile, -(-self.items * across // threads.count))), across)
        most = up(self.chunk * across, ROWS)
        self.table = row_table(np.arange(most, dtype=np.int64) * Cp)
        pixels = across * m + r - 1
        transformed = n * n * (most * Cp + lane) + n * n * (most * Kp + lane)
        self.size = up(n * pixels * Cp + 2 * n * n * lane + transformed, 16)
        self.blocks = Kp // wide
        self.weights = n * n * self.blocks * C * wide
        self.packed = r * r * self.blocks * C * wide
        self.work = max(self.packed + threads.count * n * n * lane, threads.count * self.size)
        self.nothing = np.zeros(Kp, dtype)

    def use(self, packed: Floats, scratch: Floats) -> None:
        """Set the memory for transformed weights (`weights` numbers) and the scratch memory (`work` numbers)."""
        self.memory, self.scratch = packed, scratch

    def pack(self, ws: Sequence[Floats], turned: bool) -> None:
        """Pack the kernels (see `direct.pack`) and transform them."""
        packed, scratch = self.scratch[: self.packed], self.scratch[self.packed :]
        pack(self.threads, ws, turned, packed, self.wide)
        self.threads.run(
            weights_kernel, self.blocks * self.geometry.C, TILES[self.geometry.R], self.geometry.R, packed, self.geometry.C,
            self.blocks, self.memory, self.wide, scratch, grain=8,
        )  # fmt: skip

    def run(self, x: Rows, bias: Floats, relu: bool, y: Rows, mask: Rows | None = None) -> None:
        """See `direct.Convolution.run`."""
        self.threads.run(
            forward_kernel, self.items, TILES[self.geometry.R], self.geometry.R, x, self.memory, bias, int(relu), mask or y,
            int(mask is not None), y, tuple(self.geometry), self.chunk, self.table, self.wide, self.scratch, self.size,
            pieces=-(-self.items // self.chunk),
        )  # fmt: skip


def _chunk(most: int, across: int) -> int:
    """Rows of tiles at a time: at most `most` tiles, chosen to fill the products' tiles of `ROWS` rows best."""

    def waste(rows: int) -> float:
        return up(rows * across, ROWS) / (rows * across)

    largest = max(1, most // across)
    return min(range(max(1, largest // 2), largest + 1), key=lambda rows: (round(waste(rows), 2), -rows))


class WeightGradient:
    """Like `direct.WeightGradient`, for stride 1."""

    def __init__(self, threads: Threads, geometry: Geometry, dtype: Any) -> None:
        self.threads, self.geometry = threads, geometry
        N, C, _, _, K, r, _, _, _, P, Q, _, _ = geometry
        m = TILES[r]
        self.n = n = m + r - 1
        lane = lanes(dtype)
        self.wide = narrowest(K, dtype)
        down, self.across = -(-P // m), -(-Q // m)
        self.Cp, self.Kp, self.Crows = up(C, lane), up(K, self.wide), up(C, ROWS_ACROSS)
        self.items = N * down
        itemsize = np.dtype(dtype).itemsize
        at_a_time = CHUNK if n * n * self.Crows * self.Kp * itemsize > SMALL else NEAR
        self.chunk = max(1, min(self.items, at_a_time // (n * n * (self.Cp + self.Kp) * itemsize * self.across)))
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
            threads.count * self.size,
        ]
        self.room = sum(self.rooms)

    def use(self, memory: Floats) -> None:
        """Set the scratch memory, of `room` numbers."""
        ends = np.cumsum(self.rooms)
        self.inputs, self.slopes, self.sums, self.bias, self.scratch = (
            memory[end - size : end] for end, size in zip(ends.tolist(), self.rooms, strict=True)
        )

    def run(self, dy: Rows, x: Rows, dws: Sequence[Floats], dbs: Sequence[Floats]) -> None:
        """See `direct.WeightGradient.run`."""
        run, g, lengths = self.threads.run, self.geometry, (TILES[self.geometry.R], self.geometry.R)
        sizes = tuple(g)
        frequencies = self.n * self.n
        parts = max(1, min(self.Crows // ROWS_ACROSS, -(-8 * self.threads.count // frequencies)))
        for first in range(0, self.items, self.chunk):
            items = min(self.chunk, self.items - first)
            run(
                inputs_kernel,
                items,
                *lengths,
                first,
                x,
                sizes,
                self.most,
                self.Cp,
                self.inputs,
                self.scratch,
                self.size,
            )
            run(
                slopes_kernel, items, *lengths, first, dy, sizes, self.most, self.Kp, self.slopes, self.bias, self.scratch,
                self.size,
            )  # fmt: skip
            run(
                multiply_kernel, frequencies * parts, self.inputs, self.size_in, self.Cp, g.C, self.Crows, self.slopes,
                self.size_out, self.Kp, items * self.across, parts, self.sums, int(first > 0), self.wide,
            )  # fmt: skip
        k0 = 0
        for dw, db in zip(dws, dbs, strict=True):
            run(
                gradient_kernel, g.C, *lengths, self.sums, g.C, self.Crows, self.Kp, dw, k0, db.size, self.scratch,
                grain=4,
            )  # fmt: skip
            run(bias_kernel, db.size, self.bias, self.items, self.Kp, k0, db, grain=64)
            k0 += db.size
