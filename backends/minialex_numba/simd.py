"""Vectors of the processor as values of kernels: `load`, arithmetic, `store`.

A kernel that is written with them computes as many numbers at a time as a vector has lanes, whatever the compiler
makes of its loops. ``load(x, i, n)`` reads x[i], x[i + 1], … for the first n lanes and 0 for the others, and
``store(x, i, v, n)`` writes as many; n is the number of numbers that are left, and may be larger than a vector.
Lanes beyond n compute something that nobody looks at.

    for c in range(0, C, lanes(x)):
        store(y, b + c, maximum(load(x, a + c, C - c), spread(x, 0)), C - c)
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils as untyped_cgutils
from numba.core.datamodel import models as untyped_models
from numba.core.datamodel import register_default as untyped_register
from numba.core.imputils import lower_builtin as untyped_lower
from numba.core.typing import templates as untyped_templates
from numba.extending import intrinsic as untyped_intrinsic

from minialex_numba.vectors import BYTES

intrinsic: Any = untyped_intrinsic
cgutils: Any = untyped_cgutils
models: Any = untyped_models
register_default: Any = untyped_register
lower_builtin: Any = untyped_lower
templates: Any = untyped_templates

WHOLE = 1 << 20
"""As many numbers as a vector has, whatever it has: no tail."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)


class Vector(types.Type):
    """One vector of float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = BYTES // (4 if dtype is types.float32 else 8)
        super().__init__(name=f"Vector({dtype})")


def _kind(dtype: Any) -> Any:
    """The vector in LLVM."""
    return ir.VectorType(ir.FloatType() if dtype is types.float32 else ir.DoubleType(), Vector(dtype).lanes)


@register_default(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _kind(kind.dtype))


def _is_floats(kind: Any) -> bool:
    return isinstance(kind, types.Array) and kind.dtype in (types.float32, types.float64) and kind.ndim == 1


def _fill(builder: Any, number: Any, count: int) -> Any:
    nothing = ir.Constant(ir.VectorType(number.type, count), ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, count), None))


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), arguments)


def _inside(builder: Any, n: Any, lanes: int) -> Any:
    """Which lanes are below n, as a vector of bits."""
    most = builder.select(builder.icmp_signed("<", n, ir.Constant(_I64, lanes)), n, ir.Constant(_I64, lanes))
    numbers = ir.Constant(ir.VectorType(_I32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", numbers, _fill(builder, builder.trunc(most, _I32), lanes))


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any, item: Any, lanes: int) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), ir.VectorType(item, lanes).as_pointer())


def _name(item: Any, lanes: int) -> str:
    return f"v{lanes}{'f32' if item == ir.FloatType() else 'f64' if item == ir.DoubleType() else f'i{item.width}'}"


def _load(builder: Any, address: Any, item: Any, lanes: int, size: int, n: Any) -> Any:
    kind = ir.VectorType(item, lanes)
    zero = ir.Constant(kind, None)
    name = f"llvm.masked.load.{_name(item, lanes)}.p0"
    arguments = [address, ir.Constant(_I32, size), _inside(builder, n, lanes), zero]
    if BYTES == 64:
        return _call(builder, name, kind, arguments)
    result = cgutils.alloca_once(builder, kind)  # without masks in hardware, only a tail is read with one
    with builder.if_else(builder.icmp_signed(">=", n, ir.Constant(_I64, lanes)), likely=True) as (whole, tail):
        with whole:
            builder.store(builder.load(address, align=size), result)
        with tail:
            builder.store(_call(builder, name, kind, arguments), result)
    return builder.load(result)


def _store(builder: Any, value: Any, address: Any, item: Any, lanes: int, size: int, n: Any) -> None:
    name = f"llvm.masked.store.{_name(item, lanes)}.p0"
    arguments = [value, address, ir.Constant(_I32, size), _inside(builder, n, lanes)]
    if BYTES == 64:
        _call(builder, name, ir.VoidType(), arguments)
        return
    with builder.if_else(builder.icmp_signed(">=", n, ir.Constant(_I64, lanes)), likely=True) as (whole, tail):
        with whole:
            builder.store(value, address, align=size)
        with tail:
            _call(builder, name, ir.VoidType(), arguments)


@intrinsic
def lanes(typing: Any, x: Any) -> Any:
    """How many numbers of x's dtype a vector has."""
    if not _is_floats(x):
        return None
    count = Vector(x.dtype).lanes
    return types.intp(x), lambda context, builder, signature, arguments: ir.Constant(_I64, count)


@intrinsic
def load(typing: Any, x: Any, i: Any, n: Any) -> Any:
    """x[i], x[i + 1], … in the first n lanes, 0 in the others."""
    if not _is_floats(x):
        return None
    result = Vector(x.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, count = arguments
        item, size = _kind(x.dtype).element, x.dtype.bitwidth // 8
        address = _address(context, builder, x, array, place, item, result.lanes)
        return _load(builder, address, item, result.lanes, size, count)

    return result(x, types.intp, types.intp), generate


@intrinsic
def store(typing: Any, x: Any, i: Any, v: Any, n: Any) -> Any:
    """x[i], x[i + 1], … = the first n lanes of v."""
    if not (_is_floats(x) and v == Vector(x.dtype)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, value, count = arguments
        item, size = _kind(x.dtype).element, x.dtype.bitwidth // 8
        address = _address(context, builder, x, array, place, item, v.lanes)
        _store(builder, value, address, item, v.lanes, size, count)
        return context.get_dummy_value()

    return types.void(x, types.intp, v, types.intp), generate


def _is_counts(kind: Any) -> bool:
    return isinstance(kind, types.Array) and isinstance(kind.dtype, types.Integer) and not kind.dtype.signed


@intrinsic
def load_counts(typing: Any, x: Any, i: Any, like: Any, n: Any) -> Any:
    """As `load`, of small unsigned integers, made numbers of the kind of the vector `like`."""
    if not (_is_counts(x) and isinstance(like, Vector)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, _, count = arguments
        item = ir.IntType(x.dtype.bitwidth)
        address = _address(context, builder, x, array, place, item, like.lanes)
        loaded = _load(builder, address, item, like.lanes, x.dtype.bitwidth // 8, count)
        wide = ir.VectorType(_I64 if like.dtype is types.float64 or item.width == 32 else _I32, like.lanes)
        return builder.sitofp(builder.zext(loaded, wide), _kind(like.dtype))

    return like(x, types.intp, like, types.intp), generate


@intrinsic
def store_counts(typing: Any, x: Any, i: Any, v: Any, n: Any) -> Any:
    """As `store`, of whole numbers from 0 that are made small unsigned integers."""
    if not (_is_counts(x) and isinstance(v, Vector)):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, value, count = arguments
        item = ir.IntType(x.dtype.bitwidth)
        wide = ir.VectorType(_I64 if v.dtype is types.float64 or item.width == 32 else _I32, v.lanes)
        whole = builder.fptosi(value, wide)
        narrow = builder.trunc(whole, ir.VectorType(item, v.lanes)) if wide.element != item else whole
        address = _address(context, builder, x, array, place, item, v.lanes)
        _store(builder, narrow, address, item, v.lanes, x.dtype.bitwidth // 8, count)
        return context.get_dummy_value()

    return types.void(x, types.intp, v, types.intp), generate


@intrinsic
def spread(typing: Any, x: Any, number: Any) -> Any:
    """A number in all lanes of a vector of x's dtype."""
    if not (_is_floats(x) and isinstance(number, types.Number | types.Boolean)):
        return None
    result = Vector(x.dtype)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = context.cast(builder, arguments[1], number, x.dtype)
        return _fill(builder, value, result.lanes)

    return result(x, number), generate


def _ternary(name: str, generate: Any) -> Any:
    def template(typing: Any, a: Any, b: Any, c: Any) -> Any:
        if not (isinstance(a, Vector) and a == b == c):
            return None
        return a(a, b, c), lambda context, builder, signature, arguments: generate(builder, a, *arguments)

    template.__name__ = template.__qualname__ = name
    return intrinsic(template)


def _multiply_add(builder: Any, kind: Vector, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fmuladd.{_name(a.type.element, kind.lanes)}", a.type, [a, b, c])


multiply_add = _ternary("multiply_add", _multiply_add)
"""a · b + c, rounded once where the processor can."""


def _quaternary(name: str, test: Any) -> Any:
    def template(typing: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
        if not (isinstance(a, Vector) and a == b == yes == no):
            return None

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            first, second, then, otherwise = arguments
            return builder.select(test(builder, first, second), then, otherwise)

        return yes(a, b, yes, no), generate

    template.__name__ = template.__qualname__ = name
    return intrinsic(template)


where_more = _quaternary("where_more", lambda builder, a, b: builder.fcmp_ordered(">", a, b))
"""`yes` in the lanes where a > b, else `no`."""
where_same = _quaternary("where_same", lambda builder, a, b: builder.fcmp_ordered("==", a, b))
"""`yes` in the lanes where a = b, else `no` (also where one is not a number)."""
where_wins = _quaternary(
    "where_wins",
    lambda builder, a, b: builder.or_(builder.fcmp_ordered(">", a, b), builder.fcmp_unordered("uno", a, a)),
)
"""`yes` in the lanes where a > b or a is not a number, else `no`."""


@intrinsic
def root(typing: Any, a: Any) -> Any:
    """The square root."""
    if not isinstance(a, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _call(builder, f"llvm.sqrt.{_name(arguments[0].type.element, a.lanes)}", arguments[0].type, arguments)

    return a(a), generate


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """The sum of the lanes, added from the first to the last."""
    if not isinstance(a, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        item = arguments[0].type.element
        zero = ir.Constant(item, 0.0)
        return _call(builder, f"llvm.vector.reduce.fadd.{_name(item, a.lanes)}", item, [zero, arguments[0]])

    return a.dtype(a), generate


@intrinsic
def count_finite(typing: Any, a: Any, n: Any) -> Any:
    """In how many of the first n lanes a is finite."""
    if not isinstance(a, Vector):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, n = arguments
        difference = builder.fsub(value, value)  # not a number unless finite
        bits = builder.fcmp_ordered("==", difference, ir.Constant(difference.type, None))
        bits = builder.and_(bits, _inside(builder, n, a.lanes))
        whole = builder.bitcast(bits, ir.IntType(a.lanes))
        return builder.zext(builder.ctpop(whole), _I64) if a.lanes < 64 else builder.ctpop(whole)

    return types.intp(a, types.intp), generate


@intrinsic
def where_finite(typing: Any, a: Any, yes: Any, no: Any) -> Any:
    """`yes` in the lanes where a is finite, else `no`."""
    if not (isinstance(a, Vector) and a == yes == no):
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, then, otherwise = arguments
        difference = builder.fsub(value, value)
        return builder.select(
            builder.fcmp_ordered("==", difference, ir.Constant(difference.type, None)), then, otherwise
        )

    return a(a, yes, no), generate


def _arithmetic(function: Any, instruction: str) -> None:
    class Template(templates.AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return templates.signature(args[0], *args)
            return None

    templates.infer_global(function)(Template)

    @lower_builtin(function, Vector, Vector)
    def lower(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, instruction)(*arguments)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_function, _instruction)
