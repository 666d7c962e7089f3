"""Kernels as functions of a block of memory, which machine code can call without Python.

Beside its wrapper for Python, every kernel has an entry ``int (worker, begin, end, block)``: the block holds the
other arguments, in words of eight bytes, as Numba flattens them. An array takes 5 + 2 · ndim words, a tuple those of
its items, a number one.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import lowering, types
from numpy.typing import NDArray

I32, I64 = ir.IntType(32), ir.IntType(64)
ENTRY = ir.FunctionType(I32, [I64, I64, I64, I64.as_pointer()])
SPAN = 3
"""Arguments that are passed as they are: worker, begin and end."""


class Lower(lowering.Lower):
    """Adds the entry in place of Numba's wrapper for C."""

    def create_cfunc_wrapper(self) -> None:
        """The entry: unpack the block, call the kernel, return 1 if it raised an exception."""
        context, description = self.context, self.fndesc
        if description.argtypes[:SPAN] != (types.intp,) * SPAN:
            return  # not a kernel: it has no entry
        module = context.create_module("entry")
        kind = context.call_conv.get_function_type(description.restype, description.argtypes)
        kernel = ir.Function(module, kind, description.llvm_func_name)
        entry = ir.Function(module, ENTRY, description.llvm_cfunc_wrapper_name)
        builder = ir.IRBuilder(entry.append_basic_block("entry"))
        packer = context.get_arg_packer(description.argtypes)
        *span, block = entry.args
        words = [
            builder.load(builder.bitcast(builder.gep(block, [ir.Constant(I64, i)]), word.as_pointer()))
            for i, word in enumerate(packer.argument_types[SPAN:])
        ]
        arguments = packer.from_arguments(builder, [*span, *words])
        status, _ = context.call_conv.call_function(
            builder, kernel, description.restype, description.argtypes, arguments, attrs=("noinline",)
        )
        builder.ret(builder.zext(status.is_error, I32))
        self.library.add_ir_module(module)


def entry_of(kernel: Any, arguments: tuple[Any, ...]) -> int:
    """The address of a kernel's entry for arguments of such types; compiles the kernel if need be."""
    kinds = tuple(kernel.typeof_pyval(argument) for argument in (0,) * SPAN + arguments)
    kernel.compile(kinds)
    made = kernel.overloads[kinds]
    return int(made.library.get_pointer_to_function(made.fndesc.llvm_cfunc_wrapper_name))


def words_of(argument: Any) -> Iterator[int]:
    """An argument's words."""
    if isinstance(argument, np.ndarray):
        yield from (0, 0, argument.size, argument.itemsize, address_of(argument), *argument.shape, *argument.strides)
    elif isinstance(argument, tuple):
        for item in argument:
            yield from words_of(item)
    else:
        number = np.asarray(argument)
        yield int.from_bytes(number.tobytes().ljust(8, b"\0"), "little")


def address_of(array: NDArray[Any]) -> int:
    """Where an array begins."""
    return int(array.__array_interface__["data"][0])


def packed(arguments: tuple[Any, ...]) -> NDArray[np.uint64]:
    """The block of a kernel's arguments."""
    return np.array([word % (1 << 64) for argument in arguments for word in words_of(argument)], np.uint64)
