"""The innermost loops, written for the processor's vectors: products of small tiles, and small linear transforms.

Numba compiles loops over arrays well, but it does not keep a whole tile of a matrix product in registers. So these
three loops are written as LLVM instructions; everything above them is ordinary Numba.

A vector has `LANES` numbers (of 4 or 8 bytes). A tile of a product is `ROWS` (or `ROWS_ACROSS`) rows of two vectors:
as many as fit into the registers, beside two vectors of the one factor and one number of the other, spread out. Where
a factor is narrow, a row is one vector (`products.width`); both loops are compiled, and which one runs is an argument.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.extending import intrinsic as untyped_intrinsic

from minialex_numba import winograd_matrices

intrinsic: Any = untyped_intrinsic
cgutils: Any = untyped_cgutils
config: Any = numba.config


def _bytes_and_registers() -> tuple[int, int]:
    """Bytes of a vector and number of vector registers that this processor has."""
    if config.CPU_FEATURES is not None:
        features = {word[1:]: word[0] == "+" for word in config.CPU_FEATURES.split(",") if word}
    elif config.CPU_NAME == "generic":
        features = {}
    else:
        features = dict(llvm.get_host_cpu_features())
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx"):
        return 32, 16
    return 16, 32 if "aarch64" in llvm.get_process_triple() or "arm64" in llvm.get_process_triple() else 16


BYTES, REGISTERS = _bytes_and_registers()
ACROSS = 2 * BYTES
"""Bytes of a tile's widest row: two vectors."""
ROWS = 14 if REGISTERS == 32 else 6
"""Rows of a tile whose left factor is read along its rows."""
ROWS_ACROSS = 12 if REGISTERS == 32 else 6
"""Rows of a tile whose left factor is read across its rows."""

_I64 = ir.IntType(64)


class _Pointer:
    """Reads and writes of vectors and numbers, counted in numbers from the beginning of an array."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any) -> None:
        self.builder = builder
        self.number = context.get_data_type(kind.dtype)
        self.size = 4 if kind.dtype is types.float32 else 8
        self.vector = ir.VectorType(self.number, BYTES // self.size)
        self.data = context.make_array(kind)(context, builder, array).data

    def at(self, place: Any) -> Any:
        return self.builder.gep(self.data, [place])

    def load(self, place: Any) -> Any:
        return self.builder.load(self.builder.bitcast(self.at(place), self.vector.as_pointer()), align=self.size)

    def store(self, value: Any, place: Any) -> None:
        self.builder.store(value, self.builder.bitcast(self.at(place), self.vector.as_pointer()), align=self.size)

    def spread(self, place: Any) -> Any:
        """One number in all lanes."""
        return self.fill(self.builder.load(self.at(place)))

    def fill(self, number: Any) -> Any:
        nothing = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(
            first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), self.vector.count), None)
        )

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        name = f"llvm.fmuladd.v{self.vector.count}f{8 * self.size}"
        kind = ir.FunctionType(self.vector, [self.vector] * 3)
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c])


def _constant(value: int) -> Any:
    return ir.Constant(_I64, value)


def _floats(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.dtype in (types.float32, types.float64) and kind.ndim == 1


class _Tile:
    """Rows of one or two vectors that are summed up in registers."""

    def __init__(self, c: _Pointer, rows: int, across: int) -> None:
        builder = c.builder
        self.c, self.builder = c, builder
        self.lanes = _constant(c.vector.count)
        self.sums = [[cgutils.alloca_once(builder, c.vector) for _ in range(across)] for _ in range(rows)]

    def begin(self, c0: Any, ldc: Any, accumulate: Any) -> None:
        """Start at zero, or at what is there."""
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

    def add(self, spread: Any, row: int, right: list[Any]) -> None:
        """Add one number times a row of vectors to a row."""
        for register, vector in zip(self.sums[row], right, strict=True):
            self.builder.store(self.c.multiply_add(spread, vector, self.builder.load(register)), register)

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
        """Where the vectors of a row begin that begins at `place`."""
        return [place, self.builder.add(place, self.lanes)][: len(self.sums[0])]


def _for_width(builder: Any, pointer: _Pointer, wide: Any, loops: Any) -> None:
    """The loops for rows of one vector and for rows of two; `wide` numbers tell which run."""
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

    i < ROWS, l < wide = one or two vectors. The left factor's rows lie anywhere and are read along; each is `runs` pieces
    of `length` numbers, `run` apart: a patch of an image N H W C, or a matrix's row. The right factor is packed.
    """
    if not (_floats(a) and a == b == c):
        return None
    integers = [types.intp] * 10
    signature = types.void(a, rows, *integers[:5], b, integers[5], c, *integers[6:])

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a_, rows_, row, a0, runs, run, length, b_, b0, c_, c0, ldc, accumulate, wide = arguments
        left, right, out = (
            _Pointer(context, builder, a, a_), _Pointer(context, builder, b, b_), _Pointer(context, builder, c, c_)
        )  # fmt: skip
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
                        tile.add(left.fill(builder.load(builder.gep(begin, [inner.index]))), i, vectors)
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
    if not (_floats(a) and a == b == c):
        return None
    n = [types.intp] * 3
    signature = types.void(a, *n, b, *n, types.intp, types.intp, c, *n, types.intp)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        a_, a0, a_far, a_near, b_, b0, b_far, b_near, far, near, c_, c0, ldc, accumulate, wide = arguments
        left, right, out = (
            _Pointer(context, builder, a, a_), _Pointer(context, builder, b, b_), _Pointer(context, builder, c, c_)
        )  # fmt: skip

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
                        tile.add(left.fill(builder.load(builder.gep(begin, [_constant(i)]))), i, vectors)
            tile.end(c0, ldc)

        _for_width(builder, out, wide, loops)
        return context.get_dummy_value()

    return signature, generate


@intrinsic(prefer_literal=True)
def transform(
    typing: Any, which: Any, m: Any, r: Any, out: Any, out0: Any, out_step: Any, x: Any, x0: Any, x_step: Any
) -> Any:  # fmt: skip
    """out[out0 + i·out_step + l] = Σ_j matrix[i, j] · x[x0 + j·x_step + l], for the lanes l of one vector.

    The matrix is one of `winograd_matrices.matrices(m, r)`, known when this is compiled: ``which`` is its index.
    """
    if not (_floats(out) and out == x and all(isinstance(k, types.IntegerLiteral) for k in (which, m, r))):
        return None
    matrix = winograd_matrices.matrices(m.literal_value, r.literal_value)[which.literal_value]
    n = [types.intp] * 2
    signature = types.void(which, m, r, out, *n, x, *n)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, _, out_, out0, out_step, x_, x0, x_step = arguments
        target, source = _Pointer(context, builder, out, out_), _Pointer(context, builder, x, x_)
        inputs = [source.load(builder.add(x0, builder.mul(x_step, _constant(j)))) for j in range(len(matrix[0]))]
        for i, row in enumerate(matrix):
            total = None
            for coefficient, value in zip(row, inputs, strict=True):
                if coefficient == 0:
                    continue
                factor = target.fill(ir.Constant(target.number, float(coefficient)))
                if total is None:
                    total = value if coefficient == 1 else builder.fmul(factor, value)
                elif coefficient == 1:
                    total = builder.fadd(total, value)
                elif coefficient == -1:
                    total = builder.fsub(total, value)
                else:
                    total = target.multiply_add(factor, value, total)
            assert total is not None  # no row of these matrices is all zeros
            target.store(total, builder.add(out0, builder.mul(out_step, _constant(i))))
        return context.get_dummy_value()

    return signature, generate
