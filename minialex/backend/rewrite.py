"""Tools for passes over a recorded program: find the readers of a value; replace, remove and insert calls.

A backend's compiler makes a `Rewrite` of a program, applies its passes one after another, and continues with
`Rewrite.program`. Nothing here knows a backend or an operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.backend.program import Call, Program, Value, values


def substituted(arguments: Any, by: dict[Value, Value]) -> Any:
    """(Nested) arguments with some values replaced."""
    if isinstance(arguments, Value):
        return by.get(arguments, arguments)
    if isinstance(arguments, dict):
        return {name: substituted(argument, by) for name, argument in arguments.items()}
    if type(arguments) in (tuple, list):
        return type(arguments)(substituted(argument, by) for argument in arguments)
    return arguments


class Rewrite:
    """A program that is being rewritten. Calls are compared by identity.

    Attributes:
        calls: the operations, in an order that may be followed one by one
        outputs: arrays to return, by name
    """

    def __init__(self, program: Program) -> None:
        self._before = program
        self.calls: list[Call] = []
        self.outputs = dict(program.outputs)
        self._readers: dict[Value, list[Call]] = {}
        self._new_values = 0
        for call in program.calls:
            self._insert(len(self.calls), call)

    @property
    def program(self) -> Program:
        """The program as it is now."""
        return replace(self._before, calls=tuple(self.calls), outputs=self.outputs)

    def of(self, *operations: str) -> list[Call]:
        """The calls of the named operations, in order."""
        return [call for call in self.calls if call.operation in operations]

    def position(self, call: Call) -> int:
        """The index of a call in `calls`."""
        return next(position for position, other in enumerate(self.calls) if other is call)

    def readers(self, value: Value) -> list[Call]:
        """The calls that read a value, in order; the step's caller, who reads outputs, is not among them."""
        readers = self._readers.get(value, [])
        return sorted(readers, key=self.position) if len(readers) > 1 else list(readers)

    def is_output(self, value: Value) -> bool:
        """Whether the step returns the value."""
        return any(output is value for output in self.outputs.values())

    def sole_reader(self, value: Value | None, operation: str, position: int | None = None) -> Call | None:
        """The one call that reads a value, if it is alone and of that operation.

        Args:
            value: the value; None has no reader
            operation: name of the operation that the reader must be
            position: which of its positional arguments must be the value, if that matters
        """
        readers = [] if value is None or self.is_output(value) else self._readers.get(value, [])
        if len(readers) != 1 or readers[0].operation != operation:
            return None
        return readers[0] if position is None or readers[0].args[position] is value else None

    def replace(
        self, calls: Sequence[Call], operation: str, args: Sequence[Any], kwargs: dict[str, Any],
        results: Sequence[Value | None], at_first: bool = False,
    ) -> Call:  # fmt: skip
        """Replace some calls by one, which takes over the layer, column and phase of the first.

        Args:
            calls: the calls to remove
            operation: name of the new call's operation
            args: its positional arguments
            kwargs: its named arguments
            results: its results
            at_first: whether it goes where the first of them was, instead of the last
        """
        positions = sorted(self.position(call) for call in calls)
        first = self.calls[positions[0]]
        new = Call(operation, tuple(args), kwargs, tuple(results), first.layer, first.column, first.phase)
        self._insert(positions[0] if at_first else positions[-1] + 1, new)
        for call in calls:
            self.remove(call)
        return new

    def insert_before(self, call: Call, new: Call) -> None:
        """Insert a call just before another."""
        self._insert(self.position(call), new)

    def insert_after(self, call: Call, new: Call) -> None:
        """Insert a call just after another."""
        self._insert(self.position(call) + 1, new)

    def remove(self, call: Call) -> None:
        """Remove a call."""
        del self.calls[self.position(call)]
        for value in values((call.args, call.kwargs)):
            self._readers[value] = [reader for reader in self._readers[value] if reader is not call]

    def substitute(self, old: Value, new: Value) -> None:
        """Make all readers of `old`, including the step's caller, read `new`."""
        for call in self._readers.get(old, []):
            args, kwargs = substituted((call.args, call.kwargs), {old: new})
            self._insert(self.position(call), replace(call, args=args, kwargs=kwargs))
            self.remove(call)
        self.outputs = substituted(self.outputs, {old: new})

    def value(self, shape: Sequence[int], dtype: Any, device: str) -> Value:
        """A new value for the program."""
        self._new_values += 1
        return Value(-self._new_values, tuple(shape), np.dtype(dtype), device)

    def _insert(self, position: int, call: Call) -> None:
        self.calls.insert(position, call)
        for value in values((call.args, call.kwargs)):
            readers = self._readers.setdefault(value, [])
            if not any(reader is call for reader in readers):
                readers.append(call)
