"""What is known of one operation of a submission, as it travels between processes and into JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from minialex.conformance.case import Array, Case, listed
from minialex.conformance.compare import Disagreement

SHOWN = 48  # elements of an array that are written out; larger ones are described
PASSED, NOT_THEIRS = "passed", "not theirs"
MEANINGS = {
    PASSED: "agrees with the reference on every example",
    "failed": "disagrees, raises, or breaks a rule of the protocol",
    "stub": "raises NotImplementedError, or returns None",
    "missing": "asked for, and not there",
    "borrowed": "not written by the student: imported, or calls a backend that is installed",
    "out of time": "did not end within the time limit",
    "crashed": "ended the process that called it",
    NOT_THEIRS: "left out, and not asked for",
}
"""The words for results, and what they mean."""


@dataclass
class Result:
    """The grade of one operation.

    Attributes:
        operation, status: its name, and one of `MEANINGS`
        place: ``FILE:LINE`` where it is defined, or an empty string
        examples: calls tried until the first that was wrong, or all
        seconds: how long its check took
        message: what is wrong, in one line; empty if it passed
        at: ``FILE:LINE`` where the student's code raised, if it did
        example: the smallest failing call (`describe`), or None
        remarks: what else was noticed
    """

    operation: str
    status: str
    place: str = ""
    examples: int = 0
    seconds: float = 0.0
    message: str = ""
    at: str = ""
    example: dict[str, Any] | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        """Whether it counts for the grade."""
        return self.status != NOT_THEIRS

    def as_json(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)


def describe(error: Disagreement) -> dict[str, Any] | None:
    """The failing call as a JSON value: its arguments, what came, what was expected, where they differ."""
    case = error.case
    if case is None:
        return None
    found: dict[str, Any] = {
        "call": _call(case),
        "arguments": {
            f"{name}[{index}]" if isinstance(value, list) else name: _array(array)
            for name, value in case.arrays.items()
            for index, array in enumerate(listed([value]))
        },
        "numbers": {name: repr(value) for name, value in case.numbers.items()},
        "where": error.place,
        "values": case.about,
    }
    if error.got is not None and error.expected is not None and error.wrong is not None:
        got, wrong = error.got, error.wrong
        value = error.expected.value
        with np.errstate(all="ignore"):
            exact = np.asarray(value.astype(got.dtype) if got.dtype.kind == "f" else value)
            worst = _worst(got, value, wrong)
        places = [[int(i) for i in index] for index in np.argwhere(wrong)]
        found |= {
            "result": error.expected.name,
            "expected": _array(exact),
            "got": _array(got),
            "differs": len(places),
            "differs_at": places[:8],
            "worst_at": worst,
            "allowed": float(error.expected.bound[tuple(worst)]),
        }
    return found


def _worst(got: Array, expected: Array, wrong: Array) -> list[int]:
    """The index of the element that is wrong by most."""
    error = np.abs(got.astype(np.float64) - expected)
    error = np.where(wrong, np.nan_to_num(error, nan=np.inf), -1.0)
    return [int(i) for i in np.unravel_index(int(np.argmax(error)), got.shape)]


def _call(case: Case) -> str:
    numbers = [f"{name}={_short(value)}" for name, value in case.numbers.items()]
    return f"{case.operation}({', '.join([*case.arrays, *numbers])})"


def _short(value: Any) -> str:
    return repr(float(value)) if isinstance(value, np.floating) else repr(value)


def _array(array: Array) -> dict[str, Any]:
    """Shape, dtype, and unless it is large its elements: as text for people and as (nested) lists."""
    small = array.size <= SHOWN
    text = np.array2string(array, max_line_width=88, precision=8, threshold=SHOWN + 1, edgeitems=2)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "values": _plain(array.tolist()) if small else None,
        "text": text if small else None,
    }


def _plain(value: Any) -> Any:
    """JSON has no infinities and no NaN: they become words."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
