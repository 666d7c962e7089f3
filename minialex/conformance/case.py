"""One call of one operation, with NumPy arrays instead of a backend's own, and the same call on the reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend import registry
from minialex.backend.operations import method
from minialex.backend.program import flatten
from minialex.backend.protocol import Backend

Array = NDArray[Any]
Arguments = dict[str, Any]
"""Arrays (or lists of arrays, as `Backend.concat` takes them) by the names of the operation's parameters, in order."""

IN_PLACE = {"sgd_update": ("w", "v")}
"""Arguments that an operation writes; the kit counts them among its results."""


@dataclass(frozen=True)
class Case:
    """A call.

    Attributes:
        operation: name of the protocol's method
        arrays: its arrays by parameter, in the method's order; passed by position
        numbers: everything else by parameter; passed by keyword
        layout: the arrays' memory layout on the host before `to_device` (see `lay_out`)
        about: a description of the values, for messages
    """

    operation: str
    arrays: Arguments
    numbers: dict[str, Any] = field(default_factory=dict)
    layout: str = "contiguous"
    about: str = ""

    def with_arrays(self, **arrays: Any) -> Case:
        """The same call with other arrays."""
        return replace(self, arrays={**self.arrays, **arrays})

    @property
    def dtype(self) -> np.dtype[Any]:
        """The floating dtype of the call."""
        return next(a.dtype for a in listed(self.arrays.values()) if a.dtype.kind == "f")

    @property
    def wide(self) -> Case:
        """The same call with the same floating numbers in float64."""
        return replace(self, arrays=each(self.arrays, lambda a: a.astype(np.float64) if a.dtype.kind == "f" else a))

    def __repr__(self) -> str:
        return f"{self.operation}({describe(self)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Print an example for Hypothesis, whose default prints every element of large arrays."""
        printer.text(repr(self))


def listed(arguments: Iterable[Any]) -> list[Array]:
    """All arrays among arguments, those in lists too."""
    return [a for argument in arguments for a in (argument if isinstance(argument, list) else [argument])]


def each(arguments: Arguments, function: Any) -> Arguments:
    """The same arguments with `function` applied to every array."""
    return {
        name: [function(a) for a in value] if isinstance(value, list) else function(value)
        for name, value in arguments.items()
    }


def describe(case: Case) -> str:
    """The call on one line: shapes and dtypes of the arrays, the values of small ones, and the numbers."""
    texts = []
    for name, value in case.arrays.items():
        for index, array in enumerate(listed([value])):
            label = f"{name}[{index}]" if isinstance(value, list) else name
            numbers = f" = {array.tolist()}" if array.size <= 8 else ""
            texts.append(f"{label} {tuple(array.shape)} {array.dtype}{numbers}")
    texts += [f"{name}={value!r}" for name, value in case.numbers.items()]
    return ", ".join(texts)


def lay_out(array: Array, layout: str) -> Array:
    """The same numbers in another memory layout: contiguous, transposed, strided or reversed."""
    if array.ndim == 0:
        return array.copy()
    if layout == "transposed":
        return np.asfortranarray(array)
    if layout == "strided":
        room = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
        view = room[tuple(slice(1, 2 * n + 1, 2) for n in array.shape)]
        view[...] = array
        return view
    if layout == "reversed":
        back = (slice(None, None, -1),) * array.ndim
        return np.ascontiguousarray(array[back])[back]
    return np.ascontiguousarray(array)


LAYOUTS = ("contiguous", "transposed", "strided", "reversed")


@cache
def reference() -> Backend:
    """The backend with which all others are compared."""
    return registry.load("numpy")


def compute(case: Case) -> list[Array | None]:
    """Results of a call on the reference, flat; arguments that it writes to come last."""
    backend = reference()
    device = backend.devices[0]
    arrays = each(case.arrays, lambda a: backend.to_device(a, device))
    results = flatten(method(backend, case.operation)(*arrays.values(), **case.numbers))
    results += [arrays[name] for name in IN_PLACE.get(case.operation, ())]
    return [None if result is None else backend.to_numpy(result) for result in results]
