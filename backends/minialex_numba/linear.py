"""The fully connected layer: three matrix products, each cut so that its weights are read once from memory.

Weights w [K,D] are by far the largest factor. Forward, their rows are the tiles' rows and 32 images are the tiles'
columns; for the gradient of x, blocks of w are copied side by side into the cache; the gradient of w is made tile by
tile, so that the update can be applied while it is there (`minialex_numba.step`).
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats, empty
from minialex_numba.pool import Pool
from minialex_numba.products import finish, row_table, up, width
from minialex_numba.products import lanes as lanes_of
from minialex_numba.sgd_update import update
from minialex_numba.simd import WHOLE, lanes, load, multiply_add, spread, store, total
from minialex_numba.vectors import ACROSS, ROWS, ROWS_ACROSS, tile_across, tile_along

FEW = 4
"""Images up to which a row of w times each of them is quicker than tiles."""
TILES = 4
"""Tiles of rows that one item of the forward pass has."""
DEPTH = 1024
"""Features summed up at a time: they and their weights stay in the cache."""
BLOCK = 256
"""Columns of w that are worked on at a time when gradients are made (a multiple of the tiles' width)."""


@kernel
def dots(w, a, D, x, b):
    """Σ_d w[a + r·D + d] · x[b + d] for r = 0 … 3, in the lanes of two vectors each that are added up at the end.

    Four rows at a time, since a processor's prefetching reads several streams faster than one.
    """
    step = lanes(w)
    r0 = r1 = r2 = r3 = s0 = s1 = s2 = s3 = spread(w, 0)
    whole = D - D % (2 * step)
    for d in range(0, whole, 2 * step):
        u, v = load(x, b + d, WHOLE), load(x, b + d + step, WHOLE)
        i = a + d
        r0 = multiply_add(load(w, i, WHOLE), u, r0)
        s0 = multiply_add(load(w, i + step, WHOLE), v, s0)
        r1 = multiply_add(load(w, i + D, WHOLE), u, r1)
        s1 = multiply_add(load(w, i + D + step, WHOLE), v, s1)
        r2 = multiply_add(load(w, i + 2 * D, WHOLE), u, r2)
        s2 = multiply_add(load(w, i + 2 * D + step, WHOLE), v, s2)
        r3 = multiply_add(load(w, i + 3 * D, WHOLE), u, r3)
        s3 = multiply_add(load(w, i + 3 * D + step, WHOLE), v, s3)
    for d in range(whole, D, step):
        u, i = load(x, b + d, D - d), a + d
        r0 = multiply_add(load(w, i, D - d), u, r0)
        r1 = multiply_add(load(w, i + D, D - d), u, r1)
        r2 = multiply_add(load(w, i + 2 * D, D - d), u, r2)
        r3 = multiply_add(load(w, i + 3 * D, D - d), u, r3)
    return total(r0 + s0), total(r1 + s1), total(r2 + s2), total(r3 + s3)


@kernel
def few_kernel(worker, begin, end, w, K, D, x, x0, ldx, N, bias, relu, y, y0, ldy):
    """Items are four rows of w; the last four may begin earlier, so that there are four (K ≥ 4)."""
    zero = w.dtype.type(0)
    for item in range(begin, end):
        k = min(4 * item, K - 4)
        for n in range(N):
            values = dots(w, k * D, D, x, x0 + n * ldx)
            for r in range(4):
                value = values[r] + bias[k + r]
                y[y0 + n * ldy + k + r] = zero if relu and value <= zero else value


@kernel
def pack_images_kernel(worker, begin, end, x, x0, ldx, N, D, packed):
    """packed[block][d][image in block], zeros where there is no image. Items are blocks × groups of features."""
    wide = ACROSS // x.itemsize
    groups = (D + 63) // 64
    zero = x.dtype.type(0)
    for item in range(begin, end):
        block, group = divmod(item, groups)
        for i in range(wide):
            n = block * wide + i
            for d in range(group * 64, min(group * 64 + 64, D)):
                packed[(block * D + d) * wide + i] = x[x0 + n * ldx + d] if n < N else zero


@kernel
def forward_kernel(worker, begin, end, w, K, D, packed, N, table, bias, relu, y, y0, ldy, scratch):
    """Items are `TILES` tiles of rows of w; scratch has TILES · ROWS · (images, rounded up) for each thread."""
    wide = ACROSS // w.itemsize
    blocks = (N + wide - 1) // wide
    room = TILES * ROWS * wide * blocks
    zero = w.dtype.type(0)
    for item in range(begin, end):
        first = item * TILES * ROWS
        tiles = min(TILES, (K - first + ROWS - 1) // ROWS)
        base = worker * room
        for d in range(0, D, DEPTH):
            depth = min(DEPTH, D - d)
            for block in range(blocks):
                for tile in range(tiles):
                    out = base + (block * TILES + tile) * ROWS * wide
                    tile_along(
                        w, table, first + tile * ROWS, d, 1, 0, depth,
                        packed, (block * D + d) * wide, scratch, out, wide, d, wide,
                    )  # fmt: skip
        for block in range(blocks):
            for i in range(min(wide, N - block * wide)):
                b = y0 + (block * wide + i) * ldy + first
                a = base + block * TILES * ROWS * wide + i
                for k in range(min(TILES * ROWS, K - first)):
                    value = scratch[a + k * wide] + bias[first + k]
                    y[b + k] = zero if relu and value <= zero else value


@kernel
def input_gradient_kernel(
    worker, begin, end, dy, dy0, N, K, table, w, D, nothing, accumulate, like, like0, ldlike, masked, dx, dx0, lddx, scratch
):  # fmt: skip
    """Items are `BLOCK` columns of w; scratch has BLOCK · (BLOCK + images, rounded up) numbers for each thread."""
    wide = ACROSS // w.itemsize
    lane = wide // 2
    rows = (N + ROWS - 1) // ROWS * ROWS
    for item in range(begin, end):
        first = item * BLOCK
        columns = min(BLOCK, D - first)
        panels = (columns + wide - 1) // wide
        packed = worker * BLOCK * (BLOCK + rows)
        out = packed + BLOCK * BLOCK
        if accumulate:
            for n in range(N):
                for d in range(columns):
                    scratch[out + n * BLOCK + d] = dx[dx0 + n * lddx + first + d]
        for k0 in range(0, K, BLOCK):
            depth = min(BLOCK, K - k0)
            for k in range(depth):
                a = (k0 + k) * D + first
                for panel in range(panels):
                    b = packed + (panel * depth + k) * wide
                    for d in range(0, wide, lanes(w)):
                        left = columns - panel * wide - d
                        store(scratch, b + d, load(w, a + panel * wide + d, left), WHOLE)
            for panel in range(panels):
                for row in range(0, N, ROWS):
                    tile_along(
                        dy, table, row, dy0 + k0, 1, 0, depth, scratch, packed + panel * depth * wide,
                        scratch, out + row * BLOCK + panel * wide, BLOCK, accumulate + k0, wide,
                    )  # fmt: skip
        for n in range(N):
            a, b, c = out + n * BLOCK, dx0 + n * lddx + first, like0 + n * ldlike + first
            for d in range(0, columns, lane):
                finish(dx, b + d, scratch, a + d, nothing, 0, 0, like, c + d, masked, columns - d)


@kernel
def pack_rows_kernel(worker, begin, end, x, x0, ldx, N, D, wide, packed):
    """packed[panel][n][feature in panel], panels of `wide` features, zeros beyond the last. Items are panels."""
    for panel in range(begin, end):
        for n in range(N):
            a, b = x0 + n * ldx + panel * wide, (panel * N + n) * wide
            for i in range(0, wide, lanes(x)):
                store(packed, b + i, load(x, a + i, D - panel * wide - i), wide - i)


@kernel
def weight_gradient_kernel(
    worker, begin, end, dys, xs, N, K, D, parts, dw, w, v, updates, rate, momentum, decay, kept, scratch
):  # fmt: skip
    """Items are (block of columns, part of the rows of w); the gradient is written to dw, or used to update w and v."""
    wide = ACROSS // xs.itemsize
    tiles = (K + ROWS_ACROSS - 1) // ROWS_ACROSS
    out = worker * ROWS_ACROSS * wide
    for item in range(begin, end):
        block, part = divmod(item, parts)
        first = block * BLOCK
        panels = (min(BLOCK, D - first) + wide - 1) // wide
        count = 0
        for tile in range(part * tiles // parts, (part + 1) * tiles // parts):
            for panel in range(panels):
                d0 = first + panel * wide
                tile_across(
                    dys, tile * ROWS_ACROSS * N, 0, ROWS_ACROSS, xs, d0 * N, 0, wide, 1, N, scratch, out, wide, 0, wide
                )
                columns = min(wide, D - d0)
                for i in range(min(ROWS_ACROSS, K - tile * ROWS_ACROSS)):
                    a, b = out + i * wide, (tile * ROWS_ACROSS + i) * D + d0
                    if updates:
                        count += update(w, v, b, scratch, a, columns, rate, momentum, decay)
                    else:
                        for d in range(0, columns, lanes(xs)):
                            store(dw, b + d, load(scratch, a + d, WHOLE), columns - d)
        kept[item] = count


@kernel
def bias_gradient_kernel(worker, begin, end, dy, dy0, ldy, rows, db):
    """db[k] = Σ_rows dy[row, k]; items are the k."""
    for k in range(begin, end):
        db[k] = 0
    for n in range(rows):
        a = dy0 + n * ldy
        for k in range(begin, end):
            db[k] += dy[a + k]


class Forward:
    """y [N,K] (rows ldy apart) = x [N,D] (rows ldx apart) times w [K,D], and the bias, perhaps rectified."""

    def __init__(self, pool: Pool, N: int, K: int, D: int, dtype: Any) -> None:
        self.pool, self.N, self.K, self.D = pool, N, K, D
        self.blocks = -(-N // width(dtype))
        self.tiled = N > FEW or K < 4
        if self.tiled:
            self.packed = empty(self.blocks * D * width(dtype), dtype)
            self.table = row_table(np.arange(K, dtype=np.int64) * D)
            self.scratch = empty(pool.threads * TILES * ROWS * self.blocks * width(dtype), dtype)

    def run(self, x: Floats, x0: int, ldx: int, w: Floats, b: Floats, relu: bool, y: Floats, y0: int, ldy: int) -> None:
        """Flat arrays, and where their first numbers are."""
        run, N, K, D = self.pool.run, self.N, self.K, self.D
        if not self.tiled:
            grain = max(1, (1 << 14) // max(D, 1))
            run(few_kernel, -(-K // 4), w, K, D, x, x0, ldx, N, b, relu, y, y0, ldy, grain=grain)
            return
        run(pack_images_kernel, self.blocks * -(-D // 64), x, x0, ldx, N, D, self.packed, grain=4)
        items = -(-K // (TILES * ROWS))
        run(forward_kernel, items, w, K, D, self.packed, N, self.table, b, relu, y, y0, ldy, self.scratch)


def linear(pool: Pool, x: Floats, w: Floats, b: Floats) -> Floats:
    """y[n,k] = b[k] + Σ_d w[k,d] · x[n,d]."""
    (N, D), K = x.shape, w.shape[0]
    y = np.empty((N, K), x.dtype)
    Forward(pool, N, K, D, x.dtype).run(x.reshape(-1), 0, D, w.reshape(-1), b, False, y.reshape(-1), 0, K)
    return y


class InputGradient:
    """dx [N,D] (+)= dy [N,K] times w [K,D]; with `masked`, 0 where `like` is not positive."""

    def __init__(self, pool: Pool, N: int, K: int, D: int, lddy: int, dtype: Any) -> None:
        self.pool, self.sizes, self.D = pool, (N, K), D
        self.table = row_table(np.arange(N, dtype=np.int64) * lddy)
        self.scratch = empty(pool.threads * BLOCK * (BLOCK + up(N, ROWS)), dtype)
        self.nothing = np.zeros(lanes_of(dtype), dtype)

    def run(
        self, dy: Floats, dy0: int, w: Floats, dx: Floats, dx0: int, lddx: int, accumulate: bool = False,
        mask: tuple[Floats, int, int] | None = None,
    ) -> None:  # fmt: skip
        """Flat arrays, and where their first numbers are."""
        like, like0, ldlike = mask or (dx, 0, 0)
        self.pool.run(
            input_gradient_kernel, -(-self.D // BLOCK), dy, dy0, *self.sizes, self.table, w, self.D, self.nothing,
            int(accumulate), like, like0, ldlike, int(mask is not None), dx, dx0, lddx, self.scratch,
        )  # fmt: skip


class WeightGradient:
    """dw [K,D] = dyᵀ [K,N] times x [N,D]; or, instead of writing it, the update of w and its momentum v."""

    def __init__(self, pool: Pool, N: int, K: int, D: int, dtype: Any) -> None:
        self.pool, self.N, self.K, self.D = pool, N, K, D
        self.dys = empty(N * up(K, ROWS_ACROSS), dtype)
        self.xs = empty(N * up(D, width(dtype)), dtype)
        blocks = -(-D // BLOCK)
        self.parts = max(1, min(-(-16 // blocks), -(-K // ROWS_ACROSS)))  # the same for any number of threads
        self.kept = np.zeros(blocks * self.parts, np.int64)
        self.scratch = empty(pool.threads * ROWS_ACROSS * width(dtype), dtype)

    def run(
        self, dy: Floats, dy0: int, lddy: int, x: Floats | None, x0: int, ldx: int, dw: Floats,
        update: tuple[Floats, Floats, Any, Any, Any] | None = None,
    ) -> int:  # fmt: skip
        """Flat arrays; x None: as in the last call. `update` is (w, v, rate, momentum, decay); returns what was kept."""
        run, N, K, D = self.pool.run, self.N, self.K, self.D
        run(pack_rows_kernel, -(-K // ROWS_ACROSS), dy, dy0, lddy, N, K, ROWS_ACROSS, self.dys, grain=4)
        if x is not None:
            wide = width(x.dtype)
            run(pack_rows_kernel, -(-D // wide), x, x0, ldx, N, D, wide, self.xs, grain=4)
        w, v, *numbers = update or (dw, dw, *(dw.dtype.type(0),) * 3)
        run(
            weight_gradient_kernel, len(self.kept), self.dys, self.xs, N, K, D, self.parts, dw, w, v, update is not None,
            *numbers, self.kept, self.scratch,
        )  # fmt: skip
        return int(self.kept.sum())


def linear_backward(
    pool: Pool, dy: Floats, x: Floats, w: Floats, *, need_dx: bool
) -> tuple[Floats | None, Floats, Floats]:
    """dx = dy w;  dw = dyᵀ x;  db = Σ_n dy[n]."""
    (N, D), K = x.shape, w.shape[0]
    dw, db, flat = np.zeros_like(w), np.zeros(K, x.dtype), dy.reshape(-1)
    dx = np.zeros_like(x) if need_dx else None
    if N and K and D:
        if dx is not None:
            InputGradient(pool, N, K, D, K, x.dtype).run(flat, 0, w.reshape(-1), dx.reshape(-1), 0, D)
        WeightGradient(pool, N, K, D, x.dtype).run(flat, 0, K, x.reshape(-1), 0, D, dw.reshape(-1))
    pool.run(bias_gradient_kernel, K, flat, 0, K, N, db, grain=64)
    return dx, dw, db
