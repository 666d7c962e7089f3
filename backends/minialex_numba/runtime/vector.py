"""SIMD vectors as values in kernels: `load`, arithmetic, `store`.

A kernel written with them computes as many numbers at a time as a vector has lanes, however the compiler vectorises
its loops. ``load(x, i, n)`` reads x[i], x[i + 1], … into the first n lanes and 0 into the others, and
``store(x, i, v, n)`` writes the first n lanes; n is the count of numbers left, and may exceed a vector. Lanes beyond n
compute values that nothing reads.

    for c in range(0, C, lanes(x)):
        store(y, b + c, where_more(load(x, a + c, C - c), zero, one, zero), C - c)
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"
from __future__ import annotations

import operator
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models, register_default
from numba.core.imputils import lower_builtin
from numba.core.typing import templates
from numba.extending import intrinsic as untyped_intrinsic

intrinsic: Any = untyped_intrinsic

WHOLE = 1 << 20
"""More numbers than any vector has: no tail."""

I32, I64 = ir.IntType(32), ir.IntType(64)


def _bytes_and_registers() -> tuple[int, int]:
    """Bytes in a vector, and number of vector registers, of this processor."""
    if numba.config.CPU_FEATURES is not None:
        features = {word[1:]: word[0] == "+" for word in numba.config.CPU_FEATURES.split(",") if word}
    elif numba.config.CPU_NAME == "generic":
        features = {}
    else:
        features = dict(llvm.get_host_cpu_features())
    if features.get("avx512f"):
        return 64, 32
    if features.get("avx"):
        return 32, 16
    return 16, 32 if "aarch64" in llvm.get_process_triple() or "arm64" in llvm.get_process_triple() else 16


BYTES, REGISTERS = _bytes_and_registers()


class Vector(types.Type):
    """One vector of float32 or float64, in Numba's types."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = BYTES // (4 if dtype is types.float32 else 8)
        super().__init__(name=f"Vector({dtype})")

    @property
    def llvm(self) -> Any:
        """Its LLVM type."""
        return ir.VectorType(ir.FloatType() if self.dtype is types.float32 else ir.DoubleType(), self.lanes)


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, kind.llvm)


def is_floats(kind: Any) -> bool:
    """Whether a type is a flat array of float32 or float64."""
    return isinstance(kind, types.Array) and kind.dtype in (types.float32, types.float64) and kind.ndim == 1


def _is_counts(kind: Any) -> bool:
    return isinstance(kind, types.Array) and isinstance(kind.dtype, types.Integer) and not kind.dtype.signed


# ---- LLVM ---------------------------------------------------------------------------------------------------------


def fill(builder: Any, number: Any, kind: Any) -> Any:
    """A number in all lanes of a vector."""
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(I32, kind.count), None))


def fused_multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a · b + c of vectors, rounded once where the processor can."""
    return _call(builder, "llvm.fmuladd", a.type, a.type, [a, b, c])


def _call(builder: Any, name: str, kind: Any, result: Any, arguments: list[Any], suffix: str = "") -> Any:
    """Call one of LLVM's intrinsics for vectors of a kind."""
    item = kind.element
    letter = "f32" if item == ir.FloatType() else "f64" if item == ir.DoubleType() else f"i{item.width}"
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    full_name = f"{name}.v{kind.count}{letter}{suffix}"
    return builder.call(cgutils.get_or_insert_function(builder.module, function_type, full_name), arguments)


def _first_lanes(builder: Any, n: Any, count: int) -> Any:
    """A mask of the lanes below n, as a vector of `count` bits."""
    most = builder.select(builder.icmp_signed("<", n, ir.Constant(I64, count)), n, ir.Constant(I64, count))
    kind = ir.VectorType(I32, count)
    return builder.icmp_signed(
        "<", ir.Constant(kind, list(range(count))), fill(builder, builder.trunc(most, I32), kind)
    )


def _lanes_between(builder: Any, first: Any, last: Any, count: int) -> Any:
    """A mask of the lanes first … last − 1, as a vector of `count` bits."""
    kind = ir.VectorType(I32, count)
    numbers = ir.Constant(kind, list(range(count)))
    low, high = (fill(builder, builder.trunc(end, I32), kind) for end in (first, last))
    return builder.and_(builder.icmp_signed(">=", numbers, low), builder.icmp_signed("<", numbers, high))


def _finite(builder: Any, a: Any) -> Any:
    difference = builder.fsub(a, a)  # NaN unless finite
    return builder.fcmp_ordered("==", difference, ir.Constant(difference.type, None))


class Pointer:
    """Reads and writes vectors and numbers of a flat array, at indices counted in numbers."""

    def __init__(self, context: Any, builder: Any, kind: Any, array: Any, lanes: int | None = None) -> None:
        self.builder = builder
        self.number = context.get_data_type(kind.dtype)
        self.size = kind.dtype.bitwidth // 8
        self.vector = ir.VectorType(self.number, lanes or BYTES // self.size)
        self.data = context.make_array(kind)(context, builder, array).data

    def at(self, place: Any) -> Any:
        """The address of a number."""
        return self.builder.gep(self.data, [place])

    def fill(self, number: Any) -> Any:
        """A number in all lanes."""
        return fill(self.builder, number, self.vector)

    def load(self, place: Any, n: Any = None) -> Any:
        """Read a vector that begins at a place; with n, its first n numbers."""
        builder, address = self.builder, self.builder.bitcast(self.at(place), self.vector.as_pointer())
        if n is None:
            return builder.load(address, align=self.size)
        if BYTES == 64:
            return self._load_masked(address, n)
        result = cgutils.alloca_once(builder, self.vector)  # without masks in hardware, only a tail is read with a mask
        with self._tail(n) as (whole, tail):
            with whole:
                builder.store(builder.load(address, align=self.size), result)
            with tail:
                builder.store(self._load_masked(address, n), result)
        return builder.load(result)

    def store(self, value: Any, place: Any, n: Any = None) -> None:
        """Write a vector that begins at a place; with n, its first n numbers."""
        builder, address = self.builder, self.builder.bitcast(self.at(place), self.vector.as_pointer())
        if n is None:
            builder.store(value, address, align=self.size)
        elif BYTES == 64:
            self._store_masked(value, address, n)
        else:
            with self._tail(n) as (whole, tail):
                with whole:
                    builder.store(value, address, align=self.size)
                with tail:
                    self._store_masked(value, address, n)

    def _tail(self, n: Any) -> Any:
        whole = self.builder.icmp_signed(">=", n, ir.Constant(I64, self.vector.count))
        return self.builder.if_else(whole, likely=True)

    def _load_masked(self, address: Any, n: Any) -> Any:
        mask = _first_lanes(self.builder, n, self.vector.count)
        arguments = [address, ir.Constant(I32, self.size), mask, ir.Constant(self.vector, None)]
        return _call(self.builder, "llvm.masked.load", self.vector, self.vector, arguments, ".p0")

    def _store_masked(self, value: Any, address: Any, n: Any) -> None:
        mask = _first_lanes(self.builder, n, self.vector.count)
        arguments = [value, address, ir.Constant(I32, self.size), mask]
        _call(self.builder, "llvm.masked.store", self.vector, ir.VoidType(), arguments, ".p0")


# ---- in kernels ---------------------------------------------------------------------------------------------------


@intrinsic
def lanes(typing: Any, x: Any) -> Any:
    """Number of lanes in a vector of x's dtype."""
    if not is_floats(x):
        return None
    count = Vector(x.dtype).lanes
    return types.intp(x), lambda context, builder, signature, arguments: ir.Constant(I64, count)


@intrinsic
def load(typing: Any, x: Any, i: Any, n: Any) -> Any:
    """x[i], x[i + 1], … in the first n lanes, 0 in the others."""
    if not is_floats(x):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, count = arguments
        return Pointer(context, builder, x, array).load(place, count)

    return Vector(x.dtype)(x, types.intp, types.intp), generate


@intrinsic
def store(typing: Any, x: Any, i: Any, v: Any, n: Any) -> Any:
    """x[i], x[i + 1], … = the first n lanes of v."""
    if not (is_floats(x) and v == Vector(x.dtype)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, value, count = arguments
        Pointer(context, builder, x, array).store(value, place, count)
        return context.get_dummy_value()

    return types.void(x, types.intp, v, types.intp), generate


@intrinsic
def load_lanes(typing: Any, x: Any, i: Any, first: Any, last: Any, v: Any) -> Any:
    """v with lanes first … last − 1 replaced by x[i + lane]."""
    if not (is_floats(x) and v == Vector(x.dtype)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, low, high, value = arguments
        pointer = Pointer(context, builder, x, array)
        address = builder.bitcast(pointer.at(place), pointer.vector.as_pointer())
        mask = _lanes_between(builder, low, high, v.lanes)
        given = [address, ir.Constant(I32, pointer.size), mask, value]
        return _call(builder, "llvm.masked.load", pointer.vector, pointer.vector, given, ".p0")

    return v(x, types.intp, types.intp, types.intp, v), generate


@intrinsic
def store_lanes(typing: Any, x: Any, i: Any, first: Any, last: Any, v: Any) -> Any:
    """x[i + lane] = v[lane] for the lanes first … last − 1."""
    if not (is_floats(x) and v == Vector(x.dtype)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, low, high, value = arguments
        pointer = Pointer(context, builder, x, array)
        address = builder.bitcast(pointer.at(place), pointer.vector.as_pointer())
        given = [value, address, ir.Constant(I32, pointer.size), _lanes_between(builder, low, high, v.lanes)]
        _call(builder, "llvm.masked.store", pointer.vector, ir.VoidType(), given, ".p0")
        return context.get_dummy_value()

    return types.void(x, types.intp, types.intp, types.intp, v), generate


@intrinsic
def lane_numbers(typing: Any, x: Any) -> Any:
    """0, 1, 2, … in the lanes of a vector of x's dtype."""
    if not is_floats(x):
        return None
    kind = Vector(x.dtype)
    return kind(x), lambda context, builder, signature, arguments: ir.Constant(
        kind.llvm, [float(lane) for lane in range(kind.lanes)]
    )


@intrinsic(prefer_literal=True)
def near(typing: Any, before: Any, here: Any, after: Any, far: Any) -> Any:
    """`here` shifted by `far` lanes, filled from `before` or `after`: lane l is number l + far, counted from `here`."""
    if not (isinstance(here, Vector) and before == here == after and isinstance(far, types.IntegerLiteral)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first, second, third, _ = arguments
        shift, count = far.literal_value, here.lanes
        a, b, begin = (first, second, count + shift) if shift < 0 else (second, third, shift)
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, count), list(range(begin, begin + count))))

    return here(before, here, after, far), generate


def _integers(v: Vector, counts: Any) -> Any:
    """The vector type of signed integers through which small unsigned integers are converted to v's numbers."""
    return ir.VectorType(I64 if v.dtype is types.float64 or counts.dtype.bitwidth == 32 else I32, v.lanes)


@intrinsic
def load_counts(typing: Any, x: Any, i: Any, like: Any, n: Any) -> Any:
    """Like `load`, for small unsigned integers, converted to the type of the vector `like`."""
    if not (_is_counts(x) and isinstance(like, Vector)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, _, count = arguments
        loaded = Pointer(context, builder, x, array, like.lanes).load(place, count)
        return builder.sitofp(builder.zext(loaded, _integers(like, x)), like.llvm)

    return like(x, types.intp, like, types.intp), generate


@intrinsic
def store_counts(typing: Any, x: Any, i: Any, v: Any, n: Any) -> Any:
    """Like `store`, for whole numbers from 0, converted to small unsigned integers."""
    if not (_is_counts(x) and isinstance(v, Vector)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, value, count = arguments
        pointer = Pointer(context, builder, x, array, v.lanes)
        whole = builder.fptosi(value, _integers(v, x))
        narrow = builder.trunc(whole, pointer.vector) if whole.type != pointer.vector else whole
        pointer.store(narrow, place, count)
        return context.get_dummy_value()

    return types.void(x, types.intp, v, types.intp), generate


@intrinsic
def spread(typing: Any, x: Any, number: Any) -> Any:
    """A number in all lanes of a vector of x's dtype."""
    if not (is_floats(x) and isinstance(number, types.Number | types.Boolean)):
        return None
    result = Vector(x.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return fill(builder, context.cast(builder, arguments[1], number, x.dtype), result.llvm)

    return result(x, number), generate


def _lane_by_lane(name: str, operands: int, generate: Callable[..., Any]) -> Any:
    """An operation from `operands` vectors of a type to another one; `generate` takes the builder and the vectors."""

    def template(typing: Any, *vectors: Any) -> Any:
        first = vectors[0]
        if len(vectors) != operands or not isinstance(first, Vector) or any(v != first for v in vectors):
            return None
        return first(*vectors), lambda context, builder, signature, arguments: generate(builder, *arguments)

    template.__name__ = template.__qualname__ = name
    names = ["typing", *"abcd"[:operands]]  # Numba needs their number
    template.__signature__ = Signature([Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in names])
    return intrinsic(template)


root = _lane_by_lane("root", 1, lambda builder, a: _call(builder, "llvm.sqrt", a.type, a.type, [a]))
"""The square root."""
multiply_add = _lane_by_lane("multiply_add", 3, fused_multiply_add)
"""a · b + c, rounded once where the processor can."""
where_finite = _lane_by_lane(
    "where_finite", 3, lambda builder, a, yes, no: builder.select(_finite(builder, a), yes, no)
)
"""`yes` in the lanes where a is finite, else `no`."""
where_more = _lane_by_lane(
    "where_more", 4, lambda builder, a, b, yes, no: builder.select(builder.fcmp_ordered(">", a, b), yes, no)
)
"""`yes` in the lanes where a > b, else `no`."""
where_same = _lane_by_lane(
    "where_same", 4, lambda builder, a, b, yes, no: builder.select(builder.fcmp_ordered("==", a, b), yes, no)
)
"""`yes` in the lanes where a = b, else `no` (also where one is NaN)."""


def _where_wins(builder: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    wins = builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a))
    return builder.select(wins, yes, no)


where_wins = _lane_by_lane("where_wins", 4, _where_wins)
"""`yes` in the lanes where a > b or a is NaN, else `no`."""


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of the lanes, added from first to last."""
    if not isinstance(a, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = arguments[0].type
        zero = ir.Constant(kind.element, 0.0)
        return _call(builder, "llvm.vector.reduce.fadd", kind, kind.element, [zero, arguments[0]])

    return a.dtype(a), generate


@intrinsic
def count_finite(typing: Any, a: Any, n: Any) -> Any:
    """The number of finite lanes among the first n of a."""
    if not isinstance(a, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, n = arguments
        bits = builder.and_(_finite(builder, value), _first_lanes(builder, n, a.lanes))
        whole = builder.bitcast(bits, ir.IntType(a.lanes))
        return builder.zext(builder.ctpop(whole), I64) if a.lanes < 64 else builder.ctpop(whole)

    return types.intp(a, types.intp), generate


GUESS = 0x4F581890
"""GUESS minus a quarter of the bits of x: the bits of a float32 within 3.3 % of x^(−1/4)."""
FOURTH = (0.999997199, 0.249997618, 0.157716827, 0.118434962)
"""Coefficients of a polynomial in h for (1 − h)^(−1/4), within 3.1e-6 for |h| ≤ 0.124."""


def _powers(builder: Any, x: Any) -> tuple[Any, Any]:
    """x^(−3/4) and 1/x; in float32 without roots and divisions, which take several times as long.

    For a guess y of x^(−1/4) and h = 1 − x · y⁴: x^(−1/4) = y · (1 − h)^(−1/4). Once h is below 1.3e-5,
    x^(−3/4) = y³ · (1 + 3/4 · h) and 1/x = y⁴ · (1 + h), within three and one units of roundoff.
    """

    def number(value: float) -> Any:
        return ir.Constant(x.type, [value] * x.type.count)

    if x.type.element == ir.DoubleType():
        half = _call(builder, "llvm.sqrt", x.type, x.type, [x])
        power = builder.fdiv(number(1.0), builder.fmul(half, _call(builder, "llvm.sqrt", x.type, x.type, [half])))
        return power, builder.fdiv(number(1.0), x)
    whole = ir.VectorType(I32, x.type.count)
    quarter = builder.lshr(builder.bitcast(x, whole), ir.Constant(whole, [2] * whole.count))
    y = builder.bitcast(builder.sub(ir.Constant(whole, [GUESS] * whole.count), quarter), x.type)

    def rest(y: Any) -> tuple[Any, Any, Any]:
        second = builder.fmul(y, y)
        fourth = builder.fmul(second, second)
        return second, fourth, fused_multiply_add(builder, builder.fneg(x), fourth, number(1.0))

    h = rest(y)[2]
    factor = number(FOURTH[3])
    for coefficient in FOURTH[2::-1]:
        factor = fused_multiply_add(builder, factor, h, number(coefficient))
    y = builder.fmul(y, factor)
    second, fourth, h = rest(y)
    third = builder.fmul(y, second)
    power = fused_multiply_add(builder, third, builder.fmul(h, number(0.75)), third)
    infinite = builder.fcmp_ordered("==", x, number(float("inf")))
    power = builder.select(infinite, number(0.0), power)
    return power, builder.select(infinite, number(0.0), fused_multiply_add(builder, fourth, h, fourth))


@intrinsic
def powers(typing: Any, x: Any) -> Any:
    """x^(−3/4) and 1/x, for x from 1e-30 on."""
    if not isinstance(x, Vector):
        return None
    pair = types.UniTuple(x, 2)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.make_tuple(builder, pair, _powers(builder, arguments[0]))

    return pair(x), generate


def _arithmetic(function: Any, instruction: str) -> None:
    class Template(templates.AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return templates.signature(args[0], *args)
            return None

    templates.infer_global(function)(Template)

    @lower_builtin(function, Vector, Vector)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


_arithmetic(operator.add, "fadd")
_arithmetic(operator.sub, "fsub")
_arithmetic(operator.mul, "fmul")
_arithmetic(operator.truediv, "fdiv")
