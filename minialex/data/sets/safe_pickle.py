"""Reads pickles that contain nothing but containers, numbers, text and arrays, and executes nothing.

A pickle is a small program. Python's own reader can restrict the admitted names, but it still calls them with arguments
that the file chooses. Here the few instructions that CIFAR-10 needs are interpreted one by one: a name is only ever a
word on the stack, and the few calls that bytes and arrays need are recognised by their form and carried out by our own
code. Nothing is imported or called, and memory stays within a small multiple of the file's size.
What else a type of file may contain is its `Dialect`; PyTorch's is in `minialex.exchange.pytorch_file`.

`loads` admits: dict, list, tuple, text, bytes, bool, None, 64-bit integers, float; ``_codecs.encode`` of
text to latin-1 and ``bytes()`` (how Python 3 writes bytes in protocol 2); uint8 arrays as NumPy writes them, under
either of the module's names (``numpy.core`` and ``numpy._core``). Protocol 2, as the official archive has it.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minialex.errors import DataError


@dataclass(frozen=True)
class Name:
    """A global name that the file mentions; it is never looked up."""

    module: str
    name: str


@dataclass
class _Array:
    """An array of bytes that the file describes; `value` exists once its state has been read."""

    value: np.ndarray[Any, np.dtype[np.uint8]] | None = None


@dataclass(eq=False)
class Foreign:
    """A value that only executing the file could create: its name, and the dictionary that it is given."""

    name: Name
    items: dict[Any, Any]


class Refused(Exception):
    """The pickle does something that data does not need."""


DAMAGE = (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, Warning)
"""What interpreting a damaged pickle raises, besides `Refused`."""


@dataclass(frozen=True)
class Dialect:
    """What a type of file may contain beyond plain values.

    Attributes:
        names: global names that it may mention; None if `call` makes a `Foreign` of everything that it does not know,
            which then stands for the value and takes its state
        call: returns the value of a call in the file; raises `Refused` for any other call
        build: gives a described object its state
        persistent: returns what a persistent id, which refers outside the pickle, stands for; None refuses it
    """

    names: frozenset[Name] | None
    call: Callable[[Any, Any], Any]
    build: Callable[[Any, Any], None]
    persistent: Callable[[Any], Any] | None = None


KEYS = (str, bytes, int)
"""Types of dictionary keys: only plain ones, since hashing deep tuples could exhaust the stack."""

_MARK = object()
_UINT8 = object()  # the element type that the file describes
_ENCODE = Name("_codecs", "encode")
_BYTES = Name("__builtin__", "bytes")
_NDARRAY = Name("numpy", "ndarray")
_DTYPE = Name("numpy", "dtype")
_RECONSTRUCT = (Name("numpy.core.multiarray", "_reconstruct"), Name("numpy._core.multiarray", "_reconstruct"))
_VALUES = {"BININT", "BININT1", "BININT2", "BINUNICODE", "SHORT_BINBYTES", "BINBYTES", "BINFLOAT"}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False, "MARK": lambda: _MARK,
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def loads(data: bytes, where: str) -> Any:
    """Read the value in a pickle.

    Args:
        data: the whole pickle
        where: describes the file in messages

    Raises:
        DataError: a truncated or damaged pickle, or one that asks for anything but plain values
    """
    try:
        value, end = interpret(data, NUMPY)
        if end != len(data):
            raise ValueError("more follows its end")
        return _finished(value)
    except Refused as refusal:
        raise DataError(f"{where}: refused, because a data file has no need to {refusal}; none of it was executed. "
                        "Get the official archive.") from None  # fmt: skip
    except DAMAGE as damage:
        raise DataError(f"{where}: not a complete pickle ({damage}); download it again.") from None


def interpret(data: bytes, dialect: Dialect) -> tuple[Any, int]:
    """The value in a pickle, and the number of bytes that it takes; raises `Refused`, or one of `DAMAGE`."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    encoded = 0
    argument: Any
    for opcode, argument, position in pickletools.genops(data):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _TUPLES:
            stack[-_TUPLES[name] :] = [tuple(_top(stack, _TUPLES[name]))]
        elif name == "REDUCE" or (name == "NEWOBJ" and dialect.names is None):
            function, arguments = _top(stack, 2)
            value = dialect.call(function, arguments)
            encoded += len(value) if isinstance(value, bytes) else 0
            if encoded > len(data):
                raise Refused("copy one string again and again")
            stack[-2:] = [value]
        elif name in ("SHORT_BINSTRING", "BINSTRING"):
            stack.append(argument.encode("latin-1"))  # Python 2's text: bytes
        elif name == "LONG1":
            if not -(2**63) <= argument < 2**63 and dialect.names is not None:
                raise Refused("hold a number of more than 64 bits")
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name]())
        elif name == "TUPLE":
            stack.append(tuple(_since_mark(stack)))
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else _since_mark(stack)
            if type(stack[-1]) is not Foreign:
                _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                items = _top(stack, 2)
                del stack[-2:]
            else:
                items = _since_mark(stack)
            target = stack[-1].items if type(stack[-1]) is Foreign else _expect(stack[-1], dict)
            for key, value in zip(items[::2], items[1::2], strict=True):
                if type(key) in KEYS:
                    target[key] = value
                elif dialect.names is not None:
                    raise Refused(f"use a {type(key).__name__} as a key")
        elif name == "GLOBAL":
            word = Name(*argument.split(" ", 1))
            if dialect.names is not None and word not in dialect.names:
                raise Refused(f"name '{word.module}.{word.name}'")
            stack.append(word)
        elif name == "BUILD":
            state = stack.pop()
            dialect.build(stack[-1], state)
        elif name == "BINPERSID":
            identity = stack.pop()
            if dialect.persistent is None:
                raise Refused("refer to something outside itself")
            stack.append(dialect.persistent(identity))
        elif name == "PROTO":
            if argument > 2:
                raise Refused(f"use pickle protocol {argument}")
        elif name == "STOP":
            if position is None or len(stack) != 1:
                raise ValueError("more than one value is left at its end")
            return stack.pop(), position + 1
        else:
            raise Refused(f"use the pickle instruction {name}")
    raise ValueError("it has no end")


def _top(stack: list[Any], count: int) -> list[Any]:
    """The last `count` values, which must exist and belong together."""
    values = stack[-count:]
    if len(values) != count or any(value is _MARK for value in values):
        raise ValueError("a value is missing")
    return values


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take the values above the last mark, and the mark."""
    for index in range(len(stack) - 1, -1, -1):
        if stack[index] is _MARK:
            values = stack[index + 1 :]
            del stack[index:]
            return values
    raise ValueError("a mark is missing")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{type(value).__name__} where a {kind.__name__} should be")
    return value


def _call(function: Any, arguments: Any) -> Any:
    """Carry out the calls that bytes and arrays of bytes need, by our own code."""
    if type(function) is Name and type(arguments) is tuple:
        if function == _ENCODE and len(arguments) == 2 and arguments[1] == "latin1":
            return _expect(arguments[0], str).encode("latin-1")
        if function == _BYTES and arguments == ():  # how Python 3 writes empty bytes
            return b""
        if function in _RECONSTRUCT and len(arguments) == 3 and arguments[0] == _NDARRAY and arguments[1] == (0,):
            return _Array()
        if function == _DTYPE and 1 <= len(arguments) <= 3 and arguments[0] in ("u1", b"u1"):
            return _UINT8
    raise Refused("make that call")


def _build(target: Any, state: Any) -> None:
    """Give a described array its state: (version, shape, dtype, Fortran order, bytes)."""
    if target is _UINT8:
        return  # version, byte order, …: irrelevant for bytes
    if type(target) is not _Array or type(state) is not tuple or len(state) != 5:
        raise Refused("change an object")
    _, shape, dtype, fortran, content = state
    if dtype is not _UINT8 or type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError("an array's shape or type is damaged")
    flat = np.frombuffer(_expect(content, bytes), np.uint8)
    target.value = flat.reshape(shape, order="F" if fortran else "C")


def _finished(value: Any) -> Any:
    """The value with described arrays replaced by arrays, at the top level or in a dictionary there."""
    if isinstance(value, _Array):
        return value.value
    if isinstance(value, dict):
        return {key: item.value if isinstance(item, _Array) else item for key, item in value.items()}
    return value


NUMPY = Dialect(frozenset({_ENCODE, _BYTES, _NDARRAY, _DTYPE, *_RECONSTRUCT}), _call, _build)
