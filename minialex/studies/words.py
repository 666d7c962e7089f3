"""An outcome in words and as a table. Nothing here is written by hand for a study: verdicts follow from the numbers.

The rules, for an arm whose measure the paper says is worse (or better) than the base's:

- *shown at this scale*: the 95% interval of the difference lies wholly on the paper's side of zero, and Holm's
  corrected p is below 0.05;
- *the opposite was shown at this scale*: the same on the other side;
- *not shown*: the interval includes zero and leaves no room for a difference as large as the paper's (or, where the
  paper gives no number, as one point) in the paper's direction;
- *undecided*: all else: the seeds are too few, or the effect too small, to tell.

Where the interval includes zero, the words are "no difference shown", whatever the verdict. Where the paper claims
nothing the verdict says whether there is a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from minialex.speed import machine
from minialex.studies.outcome import ArmResult, Outcome
from minialex.studies.statistics import Estimate
from minialex.studies.study import FullScale

SHOWN = "shown at this scale"
OPPOSITE = "the opposite was shown at this scale"
NOT_SHOWN = "not shown"
UNDECIDED = "undecided"
DIFFERENT, NO_DIFFERENCE = "a difference was shown at this scale", "no difference shown"
QUICK = "quick mode: the mechanics work; nothing is claimed"
SIGNIFICANT = 0.05
OF_INTEREST = 1.0  # points, where the paper gives no number

HEADS = {
    "error": "top-1 error, %",
    "gap": "validation − training error, points",
    "epochs": "epochs to 25% training error",
}
UNITS = {"error": "points of top-1 error", "gap": "points", "epochs": "epochs"}
DIGITS = {"error": 1, "gap": 1, "epochs": 2}
"""Of each measure: the head of its column, the unit in a sentence, digits after the point."""


def judge(found: Estimate, adjusted: float, expect: str, effect: float | None) -> str:
    """The verdict on a difference (arm minus base); see the rules above."""
    certain = not found.includes_zero and adjusted < SIGNIFICANT
    if expect == "none":
        return DIFFERENT if certain else NO_DIFFERENCE if found.includes_zero else UNDECIDED
    sign = 1 if expect == "worse" else -1
    if certain:
        return SHOWN if sign * found.mean > 0 else OPPOSITE
    if found.includes_zero:
        farthest = found.high if sign > 0 else -found.low
        if farthest < abs(effect if effect is not None else OF_INTEREST):
            return NOT_SHOWN
    return UNDECIDED


def judgement(outcome: Outcome, arm: ArmResult) -> str:
    """An arm's verdict."""
    if outcome.quick:
        return QUICK
    of = outcome.study.arm(arm.name)
    effect = {"error": of.effect, "epochs": 1.0}.get(outcome.study.measure)
    return judge(outcome.differences[arm.name], outcome.adjusted[arm.name], of.expect, effect)


def verdict(outcome: Outcome) -> tuple[str, ...]:
    """Sentences on what the outcome shows, one an arm."""
    if outcome.quick:
        return (QUICK + ".",)
    return tuple(_sentence(outcome, arm) for arm in outcome.arms[1:])


def _sentence(outcome: Outcome, arm: ArmResult) -> str:
    study = outcome.study
    base, mine = study.arm(outcome.base.name), study.arm(arm.name)
    found, said = outcome.differences[arm.name], judgement(outcome, arm)
    paired = f"{found.count:,} validation images" if arm.name in outcome.images else f"{found.count} paired seeds"
    unit = UNITS[study.measure]
    if found.includes_zero:
        what = f"no difference shown ({_signed(found.mean)} {unit}, 95% interval {_interval(found)}, {paired})"
    else:
        word = "more" if found.mean > 0 else "fewer" if study.measure == "epochs" else "less"
        what = f"{abs(found.mean):.1f} {unit} {word} (95% interval of the difference {_interval(found)}, {paired})"
    verdict = f"the paper's claim: {said}" if mine.expect != "none" else said if said not in what else ""
    parts = filter(None, (what, _censored(outcome), verdict))
    return f"{mine.words}, compared with {base.words}: {'; '.join(parts)}."


def _censored(outcome: Outcome) -> str:
    """Which arms did not reach the goal, if any."""
    return "; ".join(
        f"{outcome.study.arm(arm.name).words} did not reach the goal in {outcome.limits[arm.name]:g} epochs with "
        f"{arm.values.count(None)} of {len(arm.values)} seeds, which count with that number, a lower bound"
        for arm in outcome.arms
        if None in arm.values
    )


def table(outcome: Outcome) -> str:
    """The outcome as a Markdown table."""
    study = outcome.study
    full = {line.arm: _log(line) for line in study.full_scale}
    digits = DIGITS[study.measure]
    head = [
        "arm", f"{HEADS[study.measure]}: mean", "95% interval", "runs", "difference from the first", "its 95% interval",
        "p (Holm)", "paper", "2012 log", "verdict",
    ]  # fmt: skip
    rows = []
    for n, arm in enumerate(outcome.arms):
        mean = outcome.means[arm.name]
        least = "≥ " if arm.name in outcome.censored else ""
        row = [study.arm(arm.name).words, f"{least}{mean.mean:.{digits}f}", _interval(mean, digits), f"{mean.count}"]
        if n == 0:
            row += ["", "", "", "", full.get(arm.name, ""), ""]
        else:
            found = outcome.differences[arm.name]
            said = judgement(outcome, arm)
            if found.includes_zero and said in (NOT_SHOWN, UNDECIDED):
                said = f"no difference shown: {said}"
            row += [_signed(found.mean, digits), _interval(found, digits), _p(outcome.adjusted[arm.name]),
                    _paper(outcome, arm.name), full.get(arm.name, ""), said]  # fmt: skip
        rows.append(row)
    return markdown(head, rows)


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns that are empty in every row are left out."""
    kept = [n for n in range(len(head)) if any(row[n] for row in rows)]
    lines = ["| " + " | ".join(head[n] for n in kept) + " |", "|" + "---|" * len(kept)]
    return "\n".join([*lines, *("| " + " | ".join(row[n] for n in kept) + " |" for row in rows)]) + "\n"


def picture_text(outcome: Outcome) -> str:
    """What the picture of an outcome shows (`minialex.studies.drawing`), for those who do not see it."""
    study = outcome.study
    shown = "left a point for every run, with means and 95% intervals; right the differences from the first arm"
    if all(arm.curves for arm in outcome.arms):
        shown = "the training error over the epochs, a curve a run"
    means = "; ".join(
        f"{study.arm(arm.name).words}: {'at least ' if arm.name in outcome.censored else ''}"
        f"{outcome.means[arm.name].mean:.{DIGITS[study.measure]}f}"
        for arm in outcome.arms
    )
    return f"{study.title}: {shown}. Means of {HEADS[study.measure]}: {means}."


def provenance(outcome: Outcome) -> str:
    """Where the figures come from, in a line."""
    facts, seeds = outcome.facts, ", ".join(map(str, outcome.seeds))
    where, versions = facts.get("machine", {}), facts.get("versions", {})
    return (
        f"`{machine.anywhere(facts['command'])}`; {facts['data']}, {facts['training_images']:,} training and "
        f"{facts['validation_images']:,} validation images, {facts['epochs']} epochs, seeds {seeds}; "
        f"{facts['seconds'] / 60:.0f} minutes of training on one core each: {where.get('processor')}, "
        f"{where.get('cores')} cores; minialex {versions.get('minialex')} ({facts['backend']}), Python "
        f"{versions.get('python')}, NumPy {versions.get('numpy')}; {facts['date']}"
    )


def at_full_scale(outcome: Outcome) -> tuple[str, ...]:
    """What a longer run on a GPU would add: the commands for the arms that exist at the paper's scale."""
    return tuple(
        f"{outcome.study.arm(line.arm).words}: `minialex train --recipe {line.recipe} --data STORE --backend cuda`"
        for line in outcome.study.full_scale
        if line.recipe
    )


def _paper(outcome: Outcome, name: str) -> str:
    effect, expect = outcome.study.arm(name).effect, outcome.study.arm(name).expect
    if expect == "none" or effect is None:
        return "" if expect == "none" else expect
    if outcome.study.measure == "epochs":
        return f"{effect:g} times as many"
    return _signed(effect if expect == "worse" else -effect)


def _log(line: FullScale) -> str:
    if line.top1 is None:
        return ""
    base = "" if line.base_top1 is None else f"; #{line.base_log}: {line.base_top1:.1f}%"
    return f"{line.top1:.1f}% (#{line.log}, {line.set}{base})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _signed(value: float, digits: int = 1) -> str:
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if float(f"{value:.{digits}f}") != 0 else f"{0:.{digits}f}"


def _interval(found: Estimate, digits: int = 1) -> str:
    if math.isinf(found.low):
        return "none: one value"
    return f"{found.low:.{digits}f} to {found.high:.{digits}f}".replace("-", "−")
