"""An operation that nobody has written fails, whatever it is: nothing, zeros, its own argument, an exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from minialex.backend.program import flatten
from minialex.backend.protocol import OPERATIONS, Backend
from minialex.backend.rules import RULES
from minialex.conformance.checks import PROFILES
from minialex.course.grading import complete
from minialex.course.grading.submission import Submission
from minialex.course.grading.worker import grade

EXAMPLES = settings(PROFILES["ci"], max_examples=25)


def zeros(name: str) -> Callable[..., Any]:
    """Of the right number, shapes and dtypes."""

    def function(*arrays: Any, **numbers: Any) -> Any:
        made = RULES[name](*arrays, **numbers)
        made = tuple(None if spec is None else np.zeros(spec.shape, spec.dtype) for spec in flatten(made))
        return made if len(made) > 1 else made[0]

    return function


def argument(name: str) -> Callable[..., Any]:
    """The first argument, as often as there are results."""

    def function(*arrays: Any, **numbers: Any) -> Any:
        count = len(flatten(RULES[name](*arrays, **numbers)))
        return (arrays[0],) * count if count > 1 else arrays[0]

    return function


def nothing(name: str) -> Callable[..., Any]:
    """None."""
    return lambda *arrays, **numbers: None


def unwritten(name: str) -> Callable[..., Any]:
    """NotImplementedError."""

    def function(*arrays: Any, **numbers: Any) -> Any:
        raise NotImplementedError

    return function


@pytest.mark.parametrize("stub", [zeros, argument, nothing, unwritten], ids=lambda stub: stub.__name__)
@pytest.mark.parametrize("name", OPERATIONS)
def test_it_fails(name: str, stub: Callable[[str], Callable[..., Any]]) -> None:
    function = stub(name)
    function.__wrapped__ = getattr(Backend, name)  # type: ignore[attr-defined] # the protocol's parameters
    submission = Submission(complete({name: function}), {name: "stub.py:1"}, inside=(Path(__file__),))
    result = grade(submission, name, EXAMPLES, None, lambda **message: None)
    assert result.status == ("stub" if stub in (nothing, unwritten) else "failed"), result
    assert result.message


def test_a_right_one_passes_the_same_way() -> None:
    functions = {"relu": lambda x: np.maximum(x, 0)}
    submission = Submission(complete(functions), {"relu": "right.py:1"}, inside=(Path(__file__),))
    result = grade(submission, "relu", EXAMPLES, None, lambda **message: None)
    assert result.status == "passed", result
