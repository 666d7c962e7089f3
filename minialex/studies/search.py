"""The search for an arm's learning rate, and when a comparison may rely on it.

Every arm is trained at full length with two seeds or more, none of which is compared, at rates a factor of two apart,
until the best rate has a worse neighbour on both sides. A rate at the edge of what was tried is not a choice: the next
one might be better, for one arm and not for another, and a table of such arms shows the grid and not the innovation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

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
    curve: dict[float, list[float]] = {}
    for line in sorted(study.evidence, key=lambda line: (line["rate"], line["seed"])):
        if line["arm"] == searched.name:
            recipe = study.search_recipe(searched, line["seed"], line["rate"])
            if line.get("key") == key(recipe):
                curve.setdefault(line["rate"], []).append(float(line["value"]))
    return curve


def searched_arm(study: Study, arm: Arm) -> Arm:
    """The arm whose search gave an arm its learning rate."""
    return study.arm(arm.rate_of) if arm.rate_of else arm


def searched(study: Study) -> bool:
    """Whether anything was searched with the study as it is now."""
    return any(tuning(study, arm) for arm in study.arms)


def best(curve: Curve) -> list[float]:
    """The rates, the best first."""
    return sorted(curve, key=lambda rate: (math.fsum(curve[rate]) / len(curve[rate]), rate))


def next_rates(curve: Curve, grid: Sequence[float]) -> list[float]:
    """Rates that a search must try next; none where the best one has a neighbour on both sides.

    Raises:
        ConfigurationError: If it has tried too many.
    """
    if untried := [rate for rate in grid if rate not in curve]:
        return untried
    if len(curve) > MOST:
        raise ConfigurationError(f"no best learning rate among {len(curve)}, from {min(curve):g} to {max(curve):g}")
    first = best(curve)[0]
    if first == min(curve):
        return [rounded(first / STEP)]
    if first == max(curve):
        return [rounded(first * STEP)]
    return []


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
    if best(curve)[0] != arm.learning_rate:
        return f"the learning rate of {searched.words} is not the best that was found"
    if place in (0, len(rates) - 1):
        return f"the learning rate of {searched.words} is at the edge of what was tried"
    if max(rates[place + 1] / rates[place], rates[place] / rates[place - 1]) > STEP * 1.001:
        return f"the rates tried for {searched.words} are more than a factor of {STEP:g} apart"
    return ""


def agree(study: Study, arm: Arm, sign: float) -> bool:
    """Whether an arm minus the one it is compared with has a sign at the two best rates of both."""
    mine, others = tuning(study, arm), tuning(study, study.compared_with(arm))

    def mean(curve: Curve, rate: float) -> float:
        return math.fsum(curve[rate]) / len(curve[rate])

    return all(
        sign * (mean(mine, rate) - mean(others, other)) > 0 for rate in best(mine)[:2] for other in best(others)[:2]
    )
