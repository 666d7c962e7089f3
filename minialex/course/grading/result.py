"""The result for one operation of a submission, as passed between processes and written to JSON."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minialex.conformance.case import Array, listed
from minialex.conformance.compare import Disagreement

SHOWN = 48  # the most elements of an array that are written out; larger arrays are described
BUDGET = 6.0
"""All calls of an operation together may take this many times the processor time of one call."""
WAITING = 5.0
"""A call's wall-clock time may be this many times its processor time: it sleeps, or the machine is busy."""
TEXT = 800  # the most characters kept of a message
PASSED, NOT_THEIRS, UNFINISHED = "passed", "not theirs", "unfinished"
MEANINGS = {
    PASSED: "agrees with the reference on every example",
    "failed": "disagrees, raises, or breaks a rule of the protocol",
    "stub": "raises NotImplementedError, or returns None",
    "missing": "asked for, and not there",
    "borrowed": "not written by the student: imported, or calls a backend that is installed",
    "out of time": "a call did not end within the time limit",
    "crashed": "ended the process that called it, or interfered with the grader",
    UNFINISHED: "the grader did not finish, which is not the student's fault: grade it again",
    NOT_THEIRS: "missing, and not asked for",
}
"""The statuses of results, and their meanings."""


@dataclass
class Result:
    """The grade of one operation.

    Attributes:
        operation, status: the operation's name, and one of `MEANINGS`
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


def said(error: BaseException) -> str:
    """An error's text, even if it is a student's own class whose conversion to text fails."""
    try:
        return str(error)
    except BaseException:
        return "its source cannot be read"


def short(text: str) -> str:
    """A text from a submission, shortened if it is long, with characters that can be encoded."""
    more = f" … ({len(text):,} characters)" if len(text) > TEXT else ""
    return text[:TEXT].encode("utf-8", "replace").decode() + more


def read(value: Any) -> Result:
    """A result from its JSON value (`dataclasses.asdict`), which may be untrusted.

    Raises:
        ValueError: If it is not a result.
    """
    kinds = {
        "operation": str, "status": str, "place": str, "examples": int, "seconds": float | int, "message": str,
        "at": str, "example": dict | None, "remarks": list,
    }  # fmt: skip
    if not isinstance(value, dict) or set(value) != set(kinds) or value["status"] not in MEANINGS:
        raise ValueError("no result")
    if not all(isinstance(value[name], kind) for name, kind in kinds.items()):
        raise ValueError("no result")
    return Result(**value)


def describe(error: Disagreement) -> dict[str, Any] | None:
    """The failing call as a JSON value: its arguments, the result, what was expected, where they differ."""
    case = error.case
    if case is None:
        return None
    numbers = {
        name: repr(float(value) if isinstance(value, np.floating) else value) for name, value in case.numbers.items()
    }
    found: dict[str, Any] = {
        "call": f"{case.operation}({', '.join([*case.arrays, *(f'{name}={text}' for name, text in numbers.items())])})",
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
        got, wrong, value = error.got, error.wrong, error.expected.value
        with np.errstate(all="ignore"):
            exact = np.asarray(value.astype(got.dtype) if got.dtype.kind == "f" else value)
            off = np.where(wrong, np.nan_to_num(np.abs(got.astype(np.float64) - value), nan=np.inf), -1.0)
        worst = np.unravel_index(int(np.argmax(off)), got.shape)
        places = np.argwhere(wrong).tolist()
        found |= {
            "result": error.expected.name,
            "expected": _array(exact),
            "got": _array(got),
            "differs": len(places),
            "differs_at": places[:8],
            "worst_at": [int(i) for i in worst],
            "allowed": float(error.expected.bound[worst]),
        }
    return found


def _array(array: Array) -> dict[str, Any]:
    """Shape, dtype and, unless it is large, elements, as text for people and as (nested) lists."""
    small = array.size <= SHOWN
    text = np.array2string(array, max_line_width=88, precision=8, threshold=SHOWN + 1, edgeitems=2)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "values": _plain(array.tolist()) if small else None,
        "text": text if small else None,
    }


def _plain(value: Any) -> Any:
    """A number for JSON, which lacks infinities and NaN: they become text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
