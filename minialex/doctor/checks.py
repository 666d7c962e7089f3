"""Findings: what was looked at, what was found, a verdict, and the line that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "note", "problem"]
"""``"note"``: it works, but a user may want to know or change something; ``"problem"``: it does not work."""

Area = Literal["cpu", "cuda", "pair"]
"""Who needs it: everybody, users of the CUDA backend, users of two devices."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        area: who needs it
        topic: what was looked at
        verdict: how it is
        found: what it is, or what is wrong, one line
        mend: a command that can be pasted, or one sentence; empty where nothing need be done
    """

    area: Area
    topic: str
    verdict: Verdict
    found: str
    mend: str = ""


def works(checks: Iterable[Check], areas: Iterable[Area]) -> bool:
    """Whether nothing that the areas need is a problem."""
    wanted = set(areas)
    return not any(check.verdict == "problem" for check in checks if check.area in wanted)
