"""Compares a result with what was expected, and says where they differ."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.conformance.bounds import Expected
from minialex.conformance.case import Array, Case, describe


class Disagreement(AssertionError):
    """A backend does not do what the protocol says; the message says which operation, on what, and where.

    Attributes:
        case, place, what: the call, the device and dtype it ran in, and what is wrong with it; None and empty if the
            fault is not in a single call
        got, expected, wrong: the result that differs, what was expected, and where they differ (bool); None where the
            numbers are not what is wrong
    """

    case: Case | None = None
    place: str = ""
    what: str = ""
    got: Array | None = None
    expected: Expected | None = None
    wrong: Array | None = None


def fail(case: Case, place: str, what: str) -> Disagreement:
    """The error for one call: operation, dtype and device, what is wrong, and the arguments."""
    values = f"; values: {case.about}" if case.about else ""
    layout = f"; host arrays {case.layout}" if case.layout != "contiguous" else ""
    error = Disagreement(f"{case.operation} on {place}: {what}\n  arguments: {describe(case)}{values}{layout}")
    error.case, error.place, error.what = case, place, what
    return error


def outside(got: Array, expected: Expected) -> Array:
    """Where a result is farther from the expected value than allowed (bool, of the result's shape)."""
    with np.errstate(all="ignore"):
        wide = got.astype(np.float64) if got.dtype.kind == "f" else got
        same = (wide == expected.value) | ((wide != wide) & (expected.value != expected.value))  # noqa: PLR0124
        near = np.abs(wide - expected.value) <= expected.bound if got.dtype.kind == "f" else same
        found: Array = ~(same | near | np.isinf(expected.bound))
        return found


def check_value(case: Case, place: str, got: Array, expected: Expected) -> None:
    """Raise `Disagreement` with the worst element if a result is outside its bound."""
    wrong = outside(got, expected)
    if not wrong.any():
        return
    with np.errstate(all="ignore"):
        error = np.abs(got.astype(np.float64) - expected.value)
        excess = np.where(wrong, np.nan_to_num(error / np.maximum(expected.bound, 5e-324), nan=np.inf), -1.0)
    worst: Any = np.unravel_index(int(np.argmax(excess)), got.shape)
    index = [int(i) for i in worst]
    failure = fail(
        case,
        place,
        f"'{expected.name}' differs from the reference in {np.count_nonzero(wrong)} of {wrong.size} elements; worst at "
        f"{index}: got {got[worst]!r}, expected {expected.value[worst]!r}, "
        f"difference {error[worst]:.3g}, allowed {expected.bound[worst]:.3g}",
    )
    failure.got, failure.expected, failure.wrong = got, expected, wrong
    raise failure


def same_bits(first: Array, second: Array) -> bool:
    """Whether two arrays have the same shape, dtype and bytes (signed zeros and kinds of NaN too)."""
    return first.shape == second.shape and first.dtype == second.dtype and first.tobytes() == second.tobytes()
