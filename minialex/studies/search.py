"""The search for an arm's learning rate, and when a comparison may rely on it.

Every arm is trained at full length with two seeds or more, none of which is compared, at rates a factor of two apart,
until the best rate has neighbours on both sides, worse ones or as good. A rate at the edge of what was tried is not a
choice: the next one might be better, for one arm and not for another, and a table of such arms shows the grid and not
the innovation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median_low

from minialex.errors import ConfigurationError
from minialex.studies.study import Arm, Study, key

STEP = 2.0
"""The factor between neighbouring rates."""
MOST = 12
"""The number of rates after which a search gives up."""

Curve = Mapping[float, Sequence[float]]
"""The measurements by learning rate, one value per seed; infinite if training failed."""


def tuning(study: Study, arm: Arm) -> dict[float, list[float]]:
    """An arm's tuning curve, from the search's recorded runs of the study as it is now, in order of rates."""
    searched = searched_arm(study, arm)
    curve: dict[float, dict[int, float]] = {}
    for line in sorted(study.evidence, key=lambda line: (line["rate"], line["seed"])):
        if line["arm"] == searched.name:
            recipe = study.search_recipe(searched, line["seed"], line["rate"])
            if line.get("key") == key(recipe):
                curve.setdefault(line["rate"], {})[line["seed"]] = float(line["value"])
    return {rate: list(values.values()) for rate, values in curve.items()}


def searched_arm(study: Study, arm: Arm) -> Arm:
    """The arm whose search gave an arm its learning rate."""
    return study.arm(arm.rate_of) if arm.rate_of else arm


def searched(study: Study) -> bool:
    """Whether anything was searched with the study as it is now."""
    return any(tuning(study, arm) for arm in study.arms)


def best(curve: Curve) -> list[float]:
    """The rates, the best first.

    Of rates that are equally good, since all learn everything, the middle one, whose neighbours do as well; of rates
    that all fail the smallest.
    """
    means = {rate: fmean(values) for rate, values in curve.items()}  # infinite where a seed's training failed

    def place(rate: float) -> tuple[float, float, float]:
        equal = [other for other in means if means[other] == means[rate]]
        middle = median_low(equal) if math.isfinite(means[rate]) else min(equal)
        return means[rate], abs(math.log(rate / middle)), rate

    return sorted(curve, key=place)


def next_rates(curve: Curve, grid: Sequence[float]) -> list[float]:
    """Rates that a search must try next; none where the best one has a neighbour on both sides, a step away.

    Raises:
        ConfigurationError: If it has tried too many.
    """
    if untried := [rate for rate in grid if rate not in curve]:
        return untried
    first, rates = best(curve)[0], sorted(curve)
    below, above = [rate for rate in rates if rate < first], [rate for rate in rates if rate > first]
    if not below:
        wanted = [first / STEP]
    elif not above:
        wanted = [first * STEP]
    else:  # a grid may have had steps that are too wide
        wanted = [math.sqrt(a * b) for a, b in ((below[-1], first), (first, above[0])) if too_far(a, b)]
    if wanted and len(curve) > MOST:
        raise ConfigurationError(f"no best learning rate among {len(curve)}, from {rates[0]:g} to {rates[-1]:g}")
    return [rounded(rate) for rate in wanted]


def too_far(below: float, above: float) -> bool:
    """Whether two rates are more than a step apart; they may be rounded."""
    return above / below > STEP * 1.001


def rounded(rate: float) -> float:
    """A rate in four digits, so that doubling and halving give equal rates."""
    return float(f"{rate:.4g}")


def lacking(study: Study, arm: Arm) -> str:
    """Why a comparison may not rest on an arm's learning rate, or an empty text."""
    searched, curve = searched_arm(study, arm), tuning(study, arm)
    if arm.learning_rate is None or not curve:
        return f"no learning rate was searched for {searched.words} in this regime"
    if min(len(values) for values in curve.values()) < 2:
        return f"the learning rate of {searched.words} was chosen by one seed"
    rates = list(curve)
    place = rates.index(arm.learning_rate) if arm.learning_rate in rates else -1
    if place < 0 or fmean(curve[arm.learning_rate]) > fmean(curve[best(curve)[0]]):
        return f"the learning rate of {searched.words} is not the best that was found"
    if place in (0, len(rates) - 1):
        return f"the learning rate of {searched.words} is at the edge of what was tried"
    if too_far(rates[place - 1], rates[place]) or too_far(rates[place], rates[place + 1]):
        return f"the rates tried for {searched.words} are more than a factor of {STEP:g} apart"
    return ""


def agree(study: Study, arm: Arm, sign: float) -> bool:
    """Whether an arm minus the one it is compared with has a sign at the two best rates of both.

    Not where training failed at one of them, which is no measurement, and not of a gap: the search is for the lowest
    error.
    """
    if study.measure == "gap":
        return False
    mine, others = (tuning(study, each) for each in (arm, study.compared_with(arm)))
    ours, theirs = ([fmean(curve[rate]) for rate in best(curve)[:2]] for curve in (mine, others))
    return all(map(math.isfinite, (*ours, *theirs))) and all(sign * (a - b) > 0 for a in ours for b in theirs)
