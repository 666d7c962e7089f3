"""A step as data: its sequence of operations, recorded once, for `Backend.compile_step`.

Numbers that change from step to step (the learning rates, the step of a random stream) are `Symbol`s in it. Running the
layers once with a recorder (`minialex.backend.recorder`) gives the `Program` of a training or an inference step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from minialex.backend.arrays import Array


class ArrayName(NamedTuple):
    """Which array (or number) of a step: a layer's, in one column and one role; or one that is fed or comes out.

    Attributes:
        layer: the layer's name
        array: the name within the layer: ``"weight"``, ``"bias"``, …; of what is fed or comes out, which shard of the
            batch, if not the first (see `shard`)
        column: which column's piece it is
        role: ``"parameter"``, its ``"momentum"``, its ``"rate"`` (a number), how many elements were ``"skipped"``;
            ``"mean"``, ``"images"``, ``"labels"``, …, ``"loss"``, ``"probs"``; a layer's ``"output"``
        device: where it is fed to, if to every device
    """

    layer: str = ""
    array: str = ""
    column: int = 0
    role: str = "parameter"
    device: str = ""

    @property
    def whole(self) -> str:
        """The name of the whole layer's array in a state dictionary: ``"conv1.weight"``."""
        return f"{self.layer}.{self.array}"

    def to(self, role: str) -> ArrayName:
        """The same array in another role."""
        return self._replace(role=role)

    def shard(self, number: int) -> ArrayName:
        """The same name for one of the shards of a batch that a process computes, counted from 0."""
        return self._replace(array=f"shard {number}") if number else self

    def __str__(self) -> str:
        if not self.layer:
            words = f"{self.role} on {self.device}" if self.device else self.role
            return f"{words}, {self.array}" if self.array else words
        piece = f"{self.whole if self.array else self.layer}:{self.column}"
        return piece if self.role == "parameter" else f"{self.role} of {piece}"


LOSS, PROBS, LABELS, STEP = (ArrayName(role=role) for role in ("loss", "probs", "labels", "step"))


@dataclass(frozen=True, eq=False)
class Value:
    """An array in a recorded program: its shape, dtype and device. Compared by identity."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: str

    @property
    def nbytes(self) -> int:
        """The size of its numbers in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Symbol:
    """A number that is passed, by name, at every call of a compiled step."""

    name: ArrayName


@dataclass(frozen=True)
class Call:
    """One operation in a program.

    Attributes:
        operation: name of the protocol's method
        args, kwargs: its arguments in the protocol's form; arrays are `Value`s, changing numbers are `Symbol`s (also
            as the ``step`` of a `Stream`)
        results: the `Value`s that come out, flat; None where the operation returns None
        layer, column, phase: whose work it is: a layer's name, the column's number, ``"forward"``, ``"backward"``,
            ``"update"``, ``"exchange"``, ``"input"`` or ``"reduce"`` (sums over shards and ranks)
    """

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Value | None, ...]
    layer: str = ""
    column: int = 0
    phase: str = ""


@dataclass(frozen=True)
class Program:
    """A recorded step.

    Attributes:
        bound: arrays that outlive a step (parameters, their momentum, the mean); `Backend.compile_step` is
            given them once
        fed: arrays that are passed at every call (images, labels, …)
        symbols: names of the numbers that are passed at every call
        calls: the operations, in an order in which they can be run one by one
        outputs: arrays to return, by name
    """

    bound: dict[ArrayName, Value]
    fed: dict[ArrayName, Value]
    symbols: tuple[ArrayName, ...]
    calls: tuple[Call, ...]
    outputs: dict[ArrayName, Value]


Watch = Callable[[str, int, str], None]
"""Called before a piece of work begins, with the layer's name, the column, and the phase of `Call`."""


class CompiledStep(Protocol):
    """A compiled step, as `Backend.compile_step` returns it."""

    def __call__(self, feed: Mapping[ArrayName, Any], watch: Watch | None = None) -> dict[ArrayName, Array]:
        """Run the step: `feed` has the fed arrays and the symbols' numbers by name; returns the outputs by name.

        Outputs stay valid until the next call. With `watch` the step reports where its time goes: when `watch` is
        called, all work begun earlier is done. Work that serves several layers or columns at once is counted for the
        first of them.
        """
        ...


def flatten(result: Any) -> list[Any]:
    """Flatten the results of an operation, an array or a tuple or list of arrays and None, into a list."""
    return list(result) if isinstance(result, tuple | list) else [result]


def values(arguments: Any) -> list[Value]:
    """All `Value`s in (nested) arguments."""
    if isinstance(arguments, Value):
        return [arguments]
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    if isinstance(arguments, tuple | list):
        return [value for item in arguments for value in values(item)]
    return []
