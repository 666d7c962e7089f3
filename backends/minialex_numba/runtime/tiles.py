"""Tiles: small matrix products summed in the processor's registers.

Numba compiles loops over arrays well, but it does not keep a whole tile of a matrix product in registers. So the two
innermost loops are written as LLVM instructions; everything above them is ordinary Numba.

A tile of a product is `ROWS` (or `ROWS_ACROSS`) rows of two vectors: as many as fit in the registers beside two vectors
of one operand and one broadcast number of the other. If an operand is narrow, a row is one vector (`narrowest`); both
loops are compiled, and an argument selects which runs.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numpy.typing import NDArray

from minialex_numba.runtime.jit import part
from minialex_numba.runtime.vector import (
    BYTES,
    I64,
    REGISTERS,
    Pointer,
    cgutils,
    fused_multiply_add,
    intrinsic,
    is_floats,
    load,
    spread,
    store,
    where_more,
    where_wins,
)

ACROSS = 2 * BYTES
"""Bytes of a tile's widest row: two vectors."""
ROWS = 14 if REGISTERS == 32 else 6
"""Rows of a tile whose left operand is read along its rows."""
ROWS_ACROSS = 12 if REGISTERS == 32 else 6
"""Rows of a tile whose left operand is read across its rows."""
NARROW = 7.5 / 14
"""Time of a tile with one vector per row relative to two; measured on a processor with AVX-512."""


def lanes(dtype: Any) -> int:
    """Numbers in a vector."""
    return BYTES // int(np.dtype(dtype).itemsize)


def width(dtype: Any) -> int:
    """Numbers in a tile's widest row."""
    return ACROSS // int(np.dtype(dtype).itemsize)


def narrowest(K: int, dtype: Any) -> int:
    """Numbers in a tile's row for K outputs: one vector if the unused lanes of two would cost more than extra reads."""
    lane, wide = lanes(dtype), width(dtype)
    return lane if -(-K // lane) * NARROW < -(-K // wide) else wide


def up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `size`."""
    return -(-size // step) * step


def row_table(starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where rows begin; the last one repeats until the last tile is full."""
    missing = up(len(starts), ROWS) - len(starts)
    return np.concatenate([starts, np.repeat(starts[-1:], missing)]) if missing else starts


def _constant(value: int) -> Any:
    return ir.Constant(I64, value)


class _Tile:
    """Rows of one or two vectors that are summed in registers."""

    def __init__(self, c: Pointer, rows: int, across: int) -> None:
        self.c, self.builder = c, c.builder
        self.lanes = _constant(c.vector.count)
        self.sums = [[cgutils.alloca_once(c.builder, c.vector) for _ in range(across)] for _ in range(rows)]

    def begin(self, c0: Any, ldc: Any, accumulate: Any) -> None:
        """Start at zero, or at the numbers in memory."""
        builder = self.builder
        zero = ir.Constant(self.c.vector, None)
        with builder.if_else(builder.icmp_signed("!=", accumulate, _constant(0))) as (then, otherwise):
            with then:
                for place, register in self._places(c0, ldc):
                    builder.store(self.c.load(place), register)
            with otherwise:
                for row in self.sums:
                    for register in row:
                        builder.store(zero, register)

    def add(self, number: Any, row: int, right: list[Any]) -> None:
        """Add one number, read from its address, times a row of vectors to a row of the tile."""
        spread_out = self.c.fill(self.builder.load(number))
        for register, vector in zip(self.sums[row], right, strict=True):
            total = fused_multiply_add(self.builder, spread_out, vector, self.builder.load(register))
            self.builder.store(total, register)

    def end(self, c0: Any, ldc: Any) -> None:
        """Write the tile."""
        for place, register in self._places(c0, ldc):
            self.c.store(self.builder.load(register), place)

    def _places(self, c0: Any, ldc: Any) -> Any:
        place = c0
        for row in self.sums:
            yield from zip(self.shifts(place), row, strict=True)
            place = self.builder.add(place, ldc)

    def shifts(self, place: Any) -> list[Any]:
        """Where the vectors of the row at `place` begin."""
        return [place, self.builder.add(place, self.lanes)][: len(self.sums[0])]


def _for_width(builder: Any, pointer: Pointer, wide: Any, loops: Any) -> None:
    """Emit the loops for rows of one vector and of two; `wide`, a row's numbers, selects which run."""
    one = builder.icmp_signed("==", wide, _constant(pointer.vector.count))
    with builder.if_else(one) as (narrow, broad):
        with narrow:
            loops(1)
        with broad:
            loops(2)


@intrinsic
def tile_along(
    typing: Any, a: Any, rows: Any, row: Any, a0: Any, runs: Any, run: Any, length: Any,
    b: Any, b0: Any, c: Any, c0: Any, ldc: Any, accumulate: Any, wide: Any,
) -> Any:  # fmt: skip
    """c[c0 + i·ldc + l] (+)= Σ_{j < runs, k < length} a[a0 + rows[row + i] + j·run + k] · b[b0 + (j·length + k)·wide + l].

    i < ROWS, l < wide = one or two vectors. The left operand's rows lie anywhere and are read along; each is `runs`
    pieces of `length` numbers, `run` apart: a patch of an image N H W C, or a matrix row. The right operand is packed.
    """
    if not (is_floats(a) and a == b == c):
        return None
    integers = [types.intp] * 10
    signature = types.void(a, rows, *integers[:5], b, integers[5], c, *integers[6:])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a_, rows_, row, a0, runs, run, length, b_, b0, c_, c0, ldc, accumulate, wide = arguments
        left, right, out = (Pointer(context, builder, a, array) for array in (a_, b_, c_))
        table = context.make_array(rows)(context, builder, rows_).data
        starts = [
            builder.add(a0, builder.load(builder.gep(table, [builder.add(row, _constant(i))]))) for i in range(ROWS)
        ]

        def loops(across: int) -> None:
            width = _constant(across * out.vector.count)
            tile = _Tile(out, ROWS, across)
            tile.begin(c0, ldc, accumulate)
            with cgutils.for_range(builder, runs) as outer:
                shift = builder.mul(outer.index, run)
                begins = [left.at(builder.add(start, shift)) for start in starts]
                first = builder.add(b0, builder.mul(builder.mul(outer.index, length), width))
                with cgutils.for_range(builder, length) as inner:
                    place = builder.add(first, builder.mul(inner.index, width))
                    vectors = [right.load(shifted) for shifted in tile.shifts(place)]
                    for i, begin in enumerate(begins):
                        tile.add(builder.gep(begin, [inner.index]), i, vectors)
            tile.end(c0, ldc)

        _for_width(builder, out, wide, loops)
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def tile_across(
    typing: Any, a: Any, a0: Any, a_far: Any, a_near: Any, b: Any, b0: Any, b_far: Any, b_near: Any,
    far: Any, near: Any, c: Any, c0: Any, ldc: Any, accumulate: Any, wide: Any,
) -> Any:  # fmt: skip
    """c[c0 + i·ldc + l] (+)= Σ_{p < far} Σ_{q < near} a[a0 + p·a_far + q·a_near + i] · b[b0 + p·b_far + q·b_near + l].

    i < ROWS_ACROSS, l < wide = one or two vectors: a product over places (p, q) of images, such as a weight's gradient.
    """
    if not (is_floats(a) and a == b == c):
        return None
    n = [types.intp] * 3
    signature = types.void(a, *n, b, *n, types.intp, types.intp, c, *n, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a_, a0, a_far, a_near, b_, b0, b_far, b_near, far, near, c_, c0, ldc, accumulate, wide = arguments
        left, right, out = (Pointer(context, builder, a, array) for array in (a_, b_, c_))

        def loops(across: int) -> None:
            tile = _Tile(out, ROWS_ACROSS, across)
            tile.begin(c0, ldc, accumulate)
            with cgutils.for_range(builder, far) as outer:
                a_row = builder.add(a0, builder.mul(outer.index, a_far))
                b_row = builder.add(b0, builder.mul(outer.index, b_far))
                with cgutils.for_range(builder, near) as inner:
                    place = builder.add(b_row, builder.mul(inner.index, b_near))
                    vectors = [right.load(shifted) for shifted in tile.shifts(place)]
                    begin = left.at(builder.add(a_row, builder.mul(inner.index, a_near)))
                    for i in range(ROWS_ACROSS):
                        tile.add(builder.gep(begin, [_constant(i)]), i, vectors)
            tile.end(c0, ldc)

        _for_width(builder, out, wide, loops)
        return context.get_dummy_value()

    return signature, generate


@part
def finish(y, y0, x, x0, bias, bias0, relu, like, like0, masked, n):
    """Write at most n numbers, one vector, of y = x + bias; 0 where negative (`relu`), or where `like` is not positive
    (`masked`)."""
    zero = spread(x, 0)
    value = load(x, x0, n) + load(bias, bias0, n)
    if relu:
        value = where_wins(value, zero, value, zero)  # NaN stays
    if masked:
        value = where_more(load(like, like0, n), zero, value, zero)
    store(y, y0, value, n)
