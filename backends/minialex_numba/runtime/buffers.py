"""Nodes, which operations of a compiled step are made of, and the memory of their arrays.

An operation is one function in its file, its node ``NAME(on, results, *arguments, **options)``. The arguments are
those of the protocol's operation (or of a fused one, see `minialex_numba.compiler.passes`), with a program's `Value`s
in place of arrays, and `on` is the step's `Buffers`. The node requests the scratch memory that it needs and returns a
function that is called once, after all memory is allocated, to make the task that runs in every step. An operation
called by itself is the same node with buffers of its own (`minialex_numba.runtime.alone`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.backend.pretend import HostArray
from minialex.backend.program import ArrayName, Symbol, Value
from minialex_numba.runtime.layout import Rows
from minialex_numba.runtime.threads import Kernel, Threads

Feed = Mapping[ArrayName, Any]
Task = Callable[[Feed], None]
Bind = Callable[[], Task]


class Unsupported(Exception):
    """A program that cannot be compiled: its operations run one by one instead."""


def row_width(value: Value) -> int:
    """Numbers in a row: channels, or features."""
    return value.shape[1] if len(value.shape) > 1 else 1


def row_count(value: Value) -> int:
    """Number of rows: the places of all images, or the images."""
    return math.prod(value.shape) // max(row_width(value), 1)


class Whole(NamedTuple):
    """An argument of a launch that is passed as a flat array, in the protocol's order."""

    value: Value


class Compact(NamedTuple):
    """An argument of a launch that is passed as the flat array of its rows; it is not a slice."""

    value: Value


@dataclass(eq=False)
class Slices:
    """Which values are slices of others: a contiguous range of their channels.

    Attributes:
        names: names of the values that are bound or fed
        bound: the bound ones among them
        parents: for each slice, the value that it is a slice of, and its first channel there
        plain: values stored in the protocol's order, like parameters, and not as rows: gradients of parameters, and
            what is computed from them
    """

    names: dict[Value, ArrayName]
    bound: set[Value]
    parents: dict[Value, tuple[Value, int]] = field(default_factory=dict)
    plain: set[Value] = field(default_factory=set)

    def root(self, value: Value) -> Value:
        """The value that owns the memory."""
        while value in self.parents:
            value = self.parents[value][0]
        return value

    def first(self, value: Value) -> int:
        """Its first channel within the root."""
        first = 0
        while value in self.parents:
            value, offset = self.parents[value]
            first += offset
        return first

    def is_free(self, value: Value) -> bool:
        """Whether the value may still become a slice of another."""
        return value not in self.names and value not in self.parents

    def join(self, parts: list[Value]) -> None:
        """Make values adjacent slices of a new one."""
        N, _, *places = parts[0].shape
        offsets = np.cumsum([0, *map(row_width, parts)]).tolist()
        whole = Value(0, (N, offsets.pop(), *places), parts[0].dtype, parts[0].device)
        self.parents.update((part, (whole, offset)) for part, offset in zip(parts, offsets, strict=True))

    def are_adjacent(self, parts: list[Value]) -> bool:
        """Whether values are adjacent slices of one value."""
        place = self.first(parts[0])
        for part in parts:
            if self.root(part) is not self.root(parts[0]) or self.first(part) != place:
                return False
            place += row_width(part)
        return True

    def overlap(self, a: Value, b: Value) -> bool:
        """Whether two values have a channel in common."""
        if self.root(a) is not self.root(b):
            return False
        first, second = self.first(a), self.first(b)
        return first < second + row_width(b) and second < first + row_width(a)


@dataclass(eq=False)
class Buffers:
    """What node functions request their memory from.

    Attributes:
        threads: the threads that share the work
        dtype: dtype of all floating-point numbers
        slices: of the step's values
        bindings: the arrays that outlive a step, by name
        constant_weights: whether no node writes the weights, so that their packed form can be kept
        is_step: whether this is a compiled step, which is faster and less exact (see `conv.winograd`)
        memory: flat arrays of roots and of scratch memory, once all is allocated
        scratches: scratch memory requested since this was last emptied
        symbols: numbers that change from step to step: the array and the index at which each is kept, and its name
    """

    threads: Threads
    dtype: np.dtype[Any]
    slices: Slices
    bindings: Mapping[ArrayName, HostArray]
    constant_weights: bool
    is_step: bool = True
    memory: dict[Value, NDArray[Any]] = field(default_factory=dict)
    scratches: list[Value] = field(default_factory=list)
    symbols: list[tuple[NDArray[Any], int, ArrayName]] = field(default_factory=list)

    def number(self, value: float) -> Any:
        """A number of the step's dtype."""
        return self.dtype.type(value)

    def numbers(self, options: Sequence[Any], dtype: Any = None) -> NDArray[Any]:
        """Numbers as an array, by default of the step's dtype; those that are symbols follow the feed (`follow`)."""
        array = np.zeros(len(options), dtype or self.dtype)
        for i, option in enumerate(options):
            if isinstance(option, Symbol):
                self.symbols.append((array, i, option.name))
            else:
                array[i] = option
        return array

    def follow(self, feed: Feed) -> None:
        """Set the numbers that are symbols to their values in a feed."""
        for array, i, name in self.symbols:
            array[i] = feed[name]

    def scratch(self, numbers: int) -> Whole:
        """Request memory for as long as the node runs."""
        self.scratches.append(Value(0, (max(numbers, 1),), self.dtype, ""))
        return Whole(self.scratches[-1])

    def array(self, value: Value) -> HostArray:
        """The array bound to a value."""
        if value not in self.slices.bound:
            raise Unsupported("a weight that is not bound")
        return self.bindings[self.slices.names[value]]

    def fed_name(self, value: Value) -> ArrayName:
        """The name of a value in the feed."""
        name = self.slices.names.get(value)
        if name is None or value in self.slices.bound:
            raise Unsupported("an input that is not fed")
        return name

    def rows(self, value: Value) -> Rows:
        """A value's rows."""
        root = self.slices.root(value)
        if root in self.slices.bound:
            return self.array(root).data.reshape(-1), 0, row_width(root)
        if root in self.slices.names:
            raise Unsupported(f"'{self.slices.names[root]}' is read by an unexpected operation")
        return self.memory[root], self.slices.first(value), row_width(root)

    def compact(self, value: Value) -> NDArray[Any]:
        """The flat array of rows that are not a slice."""
        if value in self.slices.parents:
            raise Unsupported("a slice where a whole array is needed")
        return self.rows(value)[0]

    def whole(self, value: Value) -> NDArray[Any]:
        """The flat array of a value that is neither a slice nor images, and so is in the protocol's order."""
        return self.compact(value)

    def launch(self, kernel: Kernel, items: int, *arguments: Any, grain: int = 1, pieces: int | None = None) -> Bind:
        """Make a node of one kernel: see `Threads.run`. Values are passed as their rows, unless they are `Whole` or
        `Compact`, and named tuples as plain tuples."""

        def bind() -> Task:
            given = [self._argument(argument) for argument in arguments]
            return lambda feed: self.threads.run(kernel, items, *given, grain=grain, pieces=pieces)

        return bind

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Whole):
            return self.whole(argument.value)
        if isinstance(argument, Compact):
            return self.compact(argument.value)
        if isinstance(argument, Value):
            return self.rows(argument)
        return tuple(argument) if isinstance(argument, tuple) else argument


def current(option: Any, feed: Feed) -> Any:
    """A number, or a symbol's current value."""
    return feed[option.name] if isinstance(option, Symbol) else option


def in_order(*tasks: Task) -> Task:
    """Several tasks as one, run in order."""

    def task(feed: Feed) -> None:
        for part in tasks:
            part(feed)

    return task


def listed(values: Value | list[Value]) -> list[Value]:
    """The values of all columns of a joined operation, or the value of one, as a list."""
    return values if isinstance(values, list) else [values]
