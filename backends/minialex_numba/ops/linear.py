"""The fully connected layer: three matrix products, each blocked so that its weights are read from memory once.

The weights w [K,D] are by far the largest operand. In the forward pass, their rows are the tiles' rows and 32 images
are the tiles' lanes; for the gradient of x, blocks of w are packed side by side into the cache; the gradient of w is
computed tile by tile, so that the update can be applied while a tile is in the cache.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.program import Value
from minialex_numba.ops.sgd_update import total_kernel, update
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task, in_order, listed
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.layout import Floats, Rows, empty
from minialex_numba.runtime.threads import Threads
from minialex_numba.runtime.tiles import (
    ACROSS,
    ROWS,
    ROWS_ACROSS,
    finish,
    row_table,
    tile_across,
    tile_along,
    up,
    width,
)
from minialex_numba.runtime.tiles import lanes as lanes_of
from minialex_numba.runtime.vector import WHOLE, lanes, load, multiply_add, spread, store, total

Sizes = tuple[int, int, int]
"""N, K and D."""

FEW = 4
"""The most images for which multiplying each row of w with each image is faster than tiles."""
TILES = 4
"""Tiles of rows per item of the forward pass."""
DEPTH = 1024
"""Features summed at a time: they and their weights stay in the cache."""
BLOCK = 256
"""Features of w per block of the gradients (a multiple of the tiles' width)."""


@part
def dots(w, a, D, x, b):
    """Σ_d w[a + r·D + d] · x[b + d] for r = 0 … 3, each in the lanes of two vectors that are summed at the end.

    Four rows at a time, since the processor prefetches several streams faster than one.
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
def few_kernel(worker, begin, end, w, sizes, x, bias, relu, y):
    """Items are four rows of w; the last item overlaps the one before if K is not a multiple of four (K ≥ 4)."""
    (x, x0, ldx), (y, y0, ldy), (N, K, D) = x, y, sizes
    zero = w.dtype.type(0)
    for item in range(begin, end):
        k = min(4 * item, K - 4)
        for n in range(N):
            values = dots(w, k * D, D, x, x0 + n * ldx)
            for r in range(4):
                value = values[r] + bias[k + r]
                y[y0 + n * ldy + k + r] = zero if relu and value <= zero else value


@kernel
def pack_images_kernel(worker, begin, end, x, N, D, packed):
    """Pack x to packed[block][d][image in block], zero-padded. Items are blocks × groups of features."""
    x, x0, ldx = x
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
def forward_kernel(worker, begin, end, w, sizes, packed, table, bias, relu, y, scratch):
    """Items are `TILES` tiles of rows of w; scratch has TILES · ROWS · (images, rounded up) numbers per thread."""
    (y, y0, ldy), (N, K, D) = y, sizes
    wide = ACROSS // w.itemsize
    blocks = (N + wide - 1) // wide
    room = TILES * ROWS * wide * blocks
    zero = w.dtype.type(0)
    for item in range(begin, end):
        first = item * TILES * ROWS
        tiles = min(TILES, (K - first + ROWS - 1) // ROWS)
        base = worker * room
        for d in range(0, max(D, 1), DEPTH):  # without features: zeros
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
def input_gradient_kernel(worker, begin, end, dy, sizes, table, w, nothing, accumulate, like, masked, dx, scratch):
    """Items are `BLOCK` features; scratch has BLOCK · (BLOCK + images, rounded up) numbers per thread."""
    (dy, dy0, _), (like, like0, ldlike), (dx, dx0, lddx), (N, K, D) = dy, like, dx, sizes
    wide = ACROSS // w.itemsize
    lane = wide // 2
    rows = (N + ROWS - 1) // ROWS * ROWS
    for item in range(begin, end):
        first = item * BLOCK
        features = min(BLOCK, D - first)
        panels = (features + wide - 1) // wide
        packed = worker * BLOCK * (BLOCK + rows)
        out = packed + BLOCK * BLOCK
        if accumulate:
            for n in range(N):
                for d in range(features):
                    scratch[out + n * BLOCK + d] = dx[dx0 + n * lddx + first + d]
        for k0 in range(0, max(K, 1), BLOCK):
            depth = min(BLOCK, K - k0)
            for k in range(depth):
                a = (k0 + k) * D + first
                for panel in range(panels):
                    b = packed + (panel * depth + k) * wide
                    for d in range(0, wide, lanes(w)):
                        left = features - panel * wide - d
                        store(scratch, b + d, load(w, a + panel * wide + d, left), WHOLE)
            for panel in range(panels):
                for row in range(0, N, ROWS):
                    tile_along(
                        dy, table, row, dy0 + k0, 1, 0, depth, scratch, packed + panel * depth * wide,
                        scratch, out + row * BLOCK + panel * wide, BLOCK, accumulate + k0, wide,
                    )  # fmt: skip
        for n in range(N):
            a, b, c = out + n * BLOCK, dx0 + n * lddx + first, like0 + n * ldlike + first
            for d in range(0, features, lane):
                finish(dx, b + d, scratch, a + d, nothing, 0, 0, like, c + d, masked, features - d)


@kernel
def pack_rows_kernel(worker, begin, end, x, N, D, wide, packed):
    """Pack x to packed[panel][n][feature in panel], panels of `wide` features, zero-padded. Items are panels."""
    x, x0, ldx = x
    for panel in range(begin, end):
        for n in range(N):
            a, b = x0 + n * ldx + panel * wide, (panel * N + n) * wide
            for i in range(0, wide, lanes(x)):
                store(packed, b + i, load(x, a + i, D - panel * wide - i), wide - i)


@kernel
def weight_gradient_kernel(worker, begin, end, dys, xs, sizes, parts, dw, w, v, updates, rates, skipped, scratch):
    """Items are (block of features, part of the rows of w); the gradient is written to dw, or used to update w and v."""
    N, K, D = sizes
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
                features = min(wide, D - d0)
                for i in range(min(ROWS_ACROSS, K - tile * ROWS_ACROSS)):
                    a, b = out + i * wide, (tile * ROWS_ACROSS + i) * D + d0
                    if updates:
                        count += update(w, v, b, scratch, a, features, rates)
                    else:
                        for d in range(0, features, lanes(xs)):
                            store(dw, b + d, load(scratch, a + d, WHOLE), features - d)
        skipped[item] = count


@kernel
def bias_gradient_kernel(worker, begin, end, dy, N, db):
    """db[k] = Σ_n dy[n, k]; items are the k."""
    dy, dy0, lddy = dy
    for k in range(begin, end):
        db[k] = 0
    for n in range(N):
        a = dy0 + n * lddy
        for k in range(begin, end):
            db[k] += dy[a + k]


def forward(threads: Threads, sizes: Sizes, x: Rows, w: Floats, b: Floats, relu: bool, y: Rows) -> Task:
    """y [N,K] = x [N,D] times w [K,D] transposed, flat, plus the bias, optionally rectified."""
    N, K, D = sizes
    run = threads.run
    if N <= FEW and K >= 4:
        grain = max(1, (1 << 14) // max(D, 1))
        return lambda feed: run(few_kernel, -(-K // 4), w, sizes, x, b, relu, y, grain=grain)
    wide = width(w.dtype)
    blocks = -(-N // wide)
    packed = empty(blocks * D * wide, w.dtype)
    table = row_table(np.arange(K, dtype=np.int64) * D)
    scratch = empty(threads.count * TILES * ROWS * blocks * wide, w.dtype)

    def task(feed: Feed) -> None:
        run(pack_images_kernel, blocks * -(-D // 64), x, N, D, packed, grain=4)
        run(forward_kernel, -(-K // (TILES * ROWS)), w, sizes, packed, table, b, relu, y, scratch)

    return task


def input_gradient(
    threads: Threads, sizes: Sizes, dy: Rows, w: Floats, dx: Rows, accumulate: bool = False, mask: Rows | None = None
) -> Task:
    """dx [N,D] (+)= dy [N,K] times w [K,D], flat; 0 where a mask is not positive."""
    N, _, D = sizes
    table = row_table(np.arange(N, dtype=np.int64) * dy[2])
    scratch = empty(threads.count * BLOCK * (BLOCK + up(N, ROWS)), w.dtype)
    nothing = np.zeros(lanes_of(w.dtype), w.dtype)
    arguments = dy, sizes, table, w, nothing, int(accumulate), mask or dx, int(mask is not None), dx, scratch
    return lambda feed: threads.run(input_gradient_kernel, -(-D // BLOCK), *arguments)


def packed_rows(threads: Threads, x: Rows, N: int, D: int, wide: int) -> tuple[Floats, Task]:
    """Memory for x [N,D] packed as `tile_across` reads it, in panels of `wide` features, and the task that packs it."""
    packed = empty(N * up(D, wide), x[0].dtype)
    return packed, lambda feed: threads.run(pack_rows_kernel, -(-D // wide), x, N, D, wide, packed, grain=4)


def weight_gradient(
    threads: Threads, sizes: Sizes, dy: Rows, xs: Floats, result: NDArray[Any],
    updated: tuple[Floats, Floats, Floats] | None = None,
) -> Task:  # fmt: skip
    """The result is dw [K,D] = dyᵀ [K,N] times x [N,D], from packed x; or, with `updated` = (w, v, rates), how many
    elements of w the update skipped."""
    N, K, D = sizes
    dtype = dy[0].dtype
    dys, pack = packed_rows(threads, dy, N, K, ROWS_ACROSS)
    blocks = -(-D // BLOCK)
    parts = max(1, min(-(-16 // max(blocks, 1)), -(-K // ROWS_ACROSS)))  # the same for any number of threads
    skipped = np.zeros(blocks * parts, np.int64)
    scratch = empty(threads.count * ROWS_ACROSS * width(dtype), dtype)
    w, v, rates = updated or (result, result, result)
    dw = w if updated else result

    def task(feed: Feed) -> None:
        pack(feed)
        threads.run(
            weight_gradient_kernel, len(skipped), dys, xs, sizes, parts, dw, w, v, updated is not None,
            rates, skipped, scratch,
        )  # fmt: skip
        if updated:
            threads.run(total_kernel, 1, skipped, result)

    return task


def linear(on: Buffers, results: Sequence[Value], x: Value, w: Value, b: Value, *, relu: bool = False) -> Bind:
    """y[n,k] = b[k] + Σ_d w[k,d] · x[n,d], optionally rectified."""
    (N, D), K = x.shape, w.shape[0]
    return lambda: forward(
        on.threads, (N, K, D), on.rows(x), on.array(w).data.reshape(-1), on.array(b).data, relu, on.rows(results[0])
    )


def linear_backward(
    on: Buffers, results: Sequence[Value | None], dy: Value | list[Value], x: Value, w: Value | list[Value],
    vs: Sequence[Value] = (), *, need_dx: bool, like: Value | None = None, rates: Sequence[Sequence[Any]] = (),
) -> Bind:  # fmt: skip
    """dx = dy w;  dw = dyᵀ x;  db = Σ_n dy[n].

    For all columns that read x: dx is the sum of their gradients and, with `like`, goes through the gradient of the
    ReLU that made x. Results are dx (or None); then the dw or, with momentum `vs` and their `rates`, the number of
    elements of each w that the update skipped; then the db.
    """
    dys, ws = listed(dy), listed(w)
    del need_dx
    (dx, *gradients), (N, D), threads = results, x.shape, on.threads
    numbers = [on.numbers(each) for each in rates]

    def bind() -> Task:
        sizes = [(N, w.shape[0], D) for w in ws]
        slopes, weights = [on.rows(dy) for dy in dys], [on.array(w).data.reshape(-1) for w in ws]
        tasks: list[Task] = []
        if dx:
            target, masks = on.rows(dx), [None] * (len(ws) - 1) + [on.rows(like) if like else None]
            for i, mask in enumerate(masks):
                tasks.append(input_gradient(threads, sizes[i], slopes[i], weights[i], target, i > 0, mask))
        xs, pack = packed_rows(threads, on.rows(x), N, D, width(on.dtype))
        tasks.append(pack)
        wholes = [on.whole(value) for value in gradients if value]
        for i, (result, db) in enumerate(zip(wholes[: len(ws)], wholes[len(ws) :], strict=True)):
            updated = (weights[i], on.array(vs[i]).data.reshape(-1), numbers[i]) if rates else None
            tasks.append(weight_gradient(threads, sizes[i], slopes[i], xs, result, updated))
            tasks.append(on.launch(bias_gradient_kernel, db.size, dys[i], N, db, grain=64)())
        return in_order(*tasks)

    return bind
