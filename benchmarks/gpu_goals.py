"""The goals for one H200, beside what was measured: which are met.

Images a second on another card are asked for in proportion to the rate of its memory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minialex.speed.rates import KNOWN

OURS, EAGER, COMPILED, TUNED = "minialex", "pytorch", "torch.compile", "torch.compile, tuned"
SIDES = OURS, EAGER, COMPILED, TUNED
ONE_COLUMN = "minialex, one column"
ESTIMATED = "estimated from one column's share of its floor"
AT_FIRST, EPOCHS_25_MINUTES = 63_000, 77_000
"""Images a second; with the second, 90 epochs of 1,281,167 images take 25 minutes."""
FED = 0.9
"""End to end, as a share of the step's rate."""


@dataclass(frozen=True)
class Goal:
    """A goal and what was reached; `met` is None where it was not measured."""

    goal: str
    measured: str
    met: bool | None


def step(entry: Mapping[str, Any], side: str) -> float | None:
    """Seconds of a side's step."""
    found: float | None = entry["step"].get(side, {}).get("median")
    return found


def quickest(entry: Mapping[str, Any]) -> float | None:
    """Seconds of the step of whichever compiled peer is quicker: as a user writes it, or tuned by one who knows how."""
    return min((taken for side in (COMPILED, TUNED) if (taken := step(entry, side))), default=None)


def columns_cost(entry: Mapping[str, Any]) -> float | None:
    """What two columns on one device cost over the same network computed together, as a share; None if not known.

    An estimate, and named so in the table, beside what the network of one column takes, which has more connections:
    the backend has no kernels that compute both columns of a layer at once, so there is nothing to measure. "Together"
    is what the step would take if it reached the part of its floor that the network of one column reaches: same layers,
    one kernel where columns have two, nothing exchanged.
    """
    times = step(entry, OURS), step(entry, ONE_COLUMN)
    floors = entry.get("floor_seconds"), entry.get("floor_seconds_one_column")
    if None in (*times, *floors):
        return None
    (two, one), (floor_two, floor_one) = times, floors
    assert two is not None
    assert one is not None
    return float(two / (floor_two * one / floor_one) - 1)  # type: ignore[operator]


def goals(entries: Sequence[Mapping[str, Any]], memory: float | None = None) -> list[Goal]:
    """All goals, in the order in which they were set.

    Args:
        memory: bytes a second that the card's memory copies; None: as an H200's
    """
    part = min(1.0, round((memory or KNOWN["h200"].copy) / KNOWN["h200"].copy, 2))
    here = "" if part == 1 else f", {part:.0%} of it on this card"
    by = {(entry["precision"], entry["batch_size"]): entry for entry in entries}
    found = []
    for precision, least in (("bfloat16", 1.5), ("tf32", 1.3)):
        entry = by.get((precision, 1024), {"step": {}})
        ours, theirs = step(entry, OURS), quickest(entry)
        text = f"training in {precision}, batch 1,024: at least {least} times the quicker torch.compile's images/s"
        goal = _at_least(text, theirs / ours if ours and theirs else None, least, "{:.2f} times")
        if theirs and None in (step(entry, COMPILED), step(entry, TUNED)):  # which is the quicker one is not known
            goal = Goal(text, f"{goal.measured}, but one of the two was not timed", None)
        found.append(goal)
    large = by.get(("bfloat16", 1024), {"step": {}})
    ours, floor = step(large, OURS), large.get("floor_seconds")
    share = floor / ours if ours and floor else None
    for least, when in ((0.25, "at first"), (0.4, "in the end")):
        text = f"training in bfloat16, batch 1,024: at least {least:.0%} of the floor's speed {when}"
        found.append(_at_least(text, share, least, "{:.0%}"))
    rate = 1024 / ours if ours else None
    for least in (AT_FIRST, EPOCHS_25_MINUTES):
        text = f"training in bfloat16, batch 1,024: {least:,} images/s{here}"
        found.append(_at_least(text, rate, part * least, "{:,.0f} images/s"))
    reached = large.get("end_to_end", {}).get(OURS, {}).get("images_per_second")
    text = f"end to end in bfloat16, batch 1,024: {EPOCHS_25_MINUTES:,} images/s (90 epochs in 25 minutes){here}"
    found.append(_at_least(text, reached, part * EPOCHS_25_MINUTES, "{:,.0f} images/s"))
    text = f"end to end in bfloat16, batch 1,024: {FED:.0%} of the step's rate"
    found.append(_at_least(text, reached / rate if reached and rate else None, FED, "{:.0%}"))
    for (precision, batch), entry in by.items():
        if batch == 128:
            text = f"{precision}, batch 128: the device busy more than 90% of the time"
            found.append(_at_least(text, entry.get("busy"), 0.9, "{:.0%}"))
    for (precision, batch), entry in by.items():
        text = f"{precision}, batch {batch:,}: two columns on one device take at most 10% more than one's network"
        two, one = step(entry, OURS), step(entry, ONE_COLUMN)
        more, cost = (two / one - 1 if two and one else None), columns_cost(entry)
        reached = "not measured" if more is None else f"{more:+.0%}"
        if cost is not None:
            reached += f"; {cost:+.0%} over the same work computed together, {ESTIMATED}"
        found.append(Goal(text, reached, None if more is None else more <= 0.1))
    return found


def _at_least(text: str, value: float | None, least: float, form: str) -> Goal:
    return Goal(text, "not measured", None) if value is None else Goal(text, form.format(value), value >= least)


def table(entries: Sequence[Mapping[str, Any]], memory: float | None = None) -> list[str]:
    """The goals as lines of Markdown."""
    words = {True: "met", False: "**not met**", None: "–"}
    rows = [f"| {one.goal} | {one.measured} | {words[one.met]} |" for one in goals(entries, memory)]
    return ["| goal, on one H200 | measured | |", "|---|---:|---|", *rows]
