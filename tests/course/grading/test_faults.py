"""The kit's planted faults through the grader: each fails, and where numbers are wrong a small example is shown."""

from __future__ import annotations

import importlib.util
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from rich.console import Console

from minialex.conformance.checks import PROFILES
from minialex.conformance.strategies import STRATEGIES
from minialex.course.grading.process import Grade, Limits
from minialex.course.grading.submission import Submission
from minialex.course.grading.table import show
from minialex.course.grading.worker import grade

FILE = Path(__file__).resolve().parents[2] / "conformance" / "test_planted_faults.py"


def planted() -> Any:
    """The kit's own list, from its test."""
    spec = importlib.util.spec_from_file_location("planted_faults", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["planted_faults"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


FAULTS = planted()
FIRST = {fault.check: fault for fault in reversed(FAULTS.FAULTS)}
ELEMENTS = 130
"""More elements than this in one argument of a smallest example would not be small."""


@pytest.mark.parametrize("name", sorted(FIRST))
def test_a_planted_fault_of_each_check_fails(name: str) -> None:
    fault = FIRST[name]
    submission = Submission(FAULTS.backend_with(fault.members), {name: "faulty.py:1"}, inside=(FILE,))
    result = grade(submission, name, settings(PROFILES["ci"]), None, lambda **message: None, strict=True)
    assert result.status == "failed", fault.what
    assert result.message
    screen = io.StringIO()
    show(Console(file=screen, width=100), Grade("faulty.py", Limits(), [result]))
    assert f"─ {name} ─" in screen.getvalue()
    if name in STRATEGIES:
        assert result.example is not None, result.message
        sizes = [_size(array["shape"]) for array in result.example["arguments"].values()]
        assert max(sizes) <= ELEMENTS, result.example
        assert result.example["call"] in screen.getvalue().replace("\n", "") or len(result.example["call"]) > 70


def _size(shape: list[int]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
