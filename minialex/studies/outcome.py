"""The outcome of a study's finished runs: one number per arm and seed, and everything needed to reproduce them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from minialex.errors import DataError
from minialex.runs.run_folder import RunPaths, read_metrics
from minialex.speed import machine
from minialex.studies import measures
from minialex.studies.statistics import Estimate, estimate, holm, paired
from minialex.studies.study import Arm, Study, key, study

CURVE_POINTS = 60


@dataclass(frozen=True)
class ArmResult:
    """One arm's numbers.

    Attributes:
        values: one per seed in the order of `Outcome.seeds`, or a single one for an average of networks; None: the goal
            was not reached
        keys: keys of the runs from which they were measured
        errors: validation top-1 errors, %, if `values` are something else
        curves: [(epochs, training error)] per seed, if the study is about them
        goals: epochs to an easier goal, by its training error in per cent, one value per seed as in `values`
    """

    name: str
    values: tuple[float | None, ...]
    keys: tuple[str, ...]
    errors: tuple[float, ...] = ()
    curves: tuple[tuple[tuple[float, float], ...], ...] = ()
    goals: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A study's results; the statistics are computed from the values, unless they were recorded with them.

    Attributes:
        seeds: seeds with a finished run of every arm
        images: for an average of networks: its difference from one network alone over the validation images, points
        limits: number of epochs after which an arm's runs ended, for values that are None
        facts: command, machine, versions, date, data, seconds of training
        quick: whether it was made with ``--quick``: it shows the mechanics, and supports no claim
        recorded_means, recorded_differences: the parts of `means` and `differences` that need not be recomputed
    """

    study: Study
    seeds: tuple[int, ...]
    arms: tuple[ArmResult, ...]
    facts: Mapping[str, Any]
    images: Mapping[str, Estimate] = field(default_factory=dict)
    limits: Mapping[str, float] = field(default_factory=dict)
    quick: bool = False
    recorded_means: Mapping[str, Estimate] = field(default_factory=dict)
    recorded_differences: Mapping[str, Estimate] = field(default_factory=dict)

    @property
    def base(self) -> ArmResult:
        """The arm that the others are compared with, unless they name a different one."""
        return self.arms[0]

    def compared_with(self, arm: ArmResult) -> ArmResult:
        """The arm that an arm is compared with."""
        name = self.study.compared_with(self.study.arm(arm.name)).name
        return next(other for other in self.arms if other.name == name)

    @property
    def censored(self) -> frozenset[str]:
        """The arms that did not reach the goal with every seed: their numbers are lower bounds."""
        return frozenset(arm.name for arm in self.arms if None in arm.values)

    def numbers(self, arm: ArmResult) -> list[float]:
        """An arm's values; if the goal was not reached, the number of epochs run, a lower bound."""
        return [self.limits[arm.name] if value is None else value for value in arm.values]

    @cached_property
    def means(self) -> dict[str, Estimate]:
        """Mean and interval over the seeds, by arm."""
        return {arm.name: self.recorded_means.get(arm.name) or estimate(self.numbers(arm)) for arm in self.arms}

    @cached_property
    def differences(self) -> dict[str, Estimate]:
        """Arm minus the one it is compared with, by arm: paired by seed, or by image for an average of networks."""
        known = {**self.recorded_differences, **self.images}
        return {
            arm.name: known.get(arm.name) or paired(self.numbers(arm), self.numbers(self.compared_with(arm)))
            for arm in self.arms[1:]
        }

    @cached_property
    def adjusted(self) -> dict[str, float]:
        """p of each difference, corrected for the number of arms (Holm)."""
        return holm({name: found.p for name, found in self.differences.items()})

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON values; missing parts are left out."""
        arms = [
            {
                "name": arm.name,
                "values": _rounded(arm.values),
                "keys": list(arm.keys),
                "errors": _rounded(arm.errors),
                "curves": [[list(point) for point in curve] for curve in arm.curves],
                "goals": {goal: list(values) for goal, values in arm.goals.items()},
            }
            for arm in self.arms
        ]
        value = {
            "study": self.study.name,
            "measure": self.study.measure,
            "seeds": list(self.seeds),
            "arms": [{name: part for name, part in arm.items() if part or name == "keys"} for arm in arms],
            "images": _numbers(self.images),
            "means": _numbers(self.means),
            "differences": _numbers(self.differences),
            "limits": dict(self.limits),
            "quick": self.quick,
            "facts": dict(self.facts),
        }
        return {name: part for name, part in value.items() if part or name not in ("images", "limits", "quick")}


def _rounded(values: Iterable[float | None]) -> list[float | None]:
    return [None if value is None else round(value, 4) for value in values]


def _numbers(estimates: Mapping[str, Estimate]) -> dict[str, list[float]]:
    """Estimates as JSON values; a single value has no interval to record."""
    return {name: list(astuple(found)) for name, found in estimates.items() if found.count > 1}


def from_json(value: Mapping[str, Any], of: Study) -> Outcome:
    """The inverse of `Outcome.to_json`.

    Raises:
        DataError: If something is missing or of another kind, or the statistics are not those of the values.
    """
    damaged = f"the recorded outcome of '{of.name}' is damaged"
    try:
        arms = tuple(
            ArmResult(
                str(arm["name"]),
                tuple(None if v is None else float(v) for v in arm["values"]),
                tuple(arm["keys"]),
                tuple(arm.get("errors", ())),
                tuple(tuple((float(a), float(b)) for a, b in curve) for curve in arm.get("curves", ())),
                {goal: tuple(values) for goal, values in arm.get("goals", {}).items()},
            )
            for arm in value["arms"]
        )
        images, means, differences = (
            {name: Estimate(*numbers) for name, numbers in value.get(kind, {}).items()}
            for kind in ("images", "means", "differences")
        )
        limits, quick = value.get("limits", {}), value.get("quick", False)
        found = Outcome(of, tuple(value["seeds"]), arms, value["facts"], images, limits, quick, means, differences)
        if reason := _inconsistent(found, value.get("measure")):
            raise DataError(f"{damaged}, or of another design: {reason}")
        return found
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise DataError(f"{damaged}: {error!r}") from None


def _inconsistent(found: Outcome, measure: object) -> str:
    """Why a record's parts do not belong together, or to the study as it is now; or an empty text."""
    if measure != found.study.measure:
        return f"it measures '{measure}', and not '{found.study.measure}'"
    known = [arm.name for arm in found.study.arms]
    if len(found.arms) < 2 or [arm.name for arm in found.arms] != known[: len(found.arms)]:
        return f"it has the arms {', '.join(arm.name for arm in found.arms)}, and not {', '.join(known)}"
    for arm in found.arms:
        count = 1 if found.study.arm(arm.name).evaluate.average > 1 else len(found.seeds)
        numbers = found.numbers(arm)
        if len(numbers) != count or len(arm.keys) != len(found.seeds) or not all(map(math.isfinite, numbers)):
            return f"arm '{arm.name}' has not a number for every seed"
        differ = [(found.recorded_means.get(arm.name), math.fsum(numbers) / count)]
        if arm is not found.base:
            base = found.numbers(found.compared_with(arm))
            differ.append((found.images.get(arm.name) or found.recorded_differences.get(arm.name),
                           math.fsum(numbers) / count - math.fsum(base) / len(base)))  # fmt: skip
        for kept, follows in differ:
            if kept is not None and not abs(kept.mean - follows) < 0.01:
                return f"the statistics of arm '{arm.name}' are not those of its values"
    return ""


def recorded(name: str) -> Outcome | None:
    """The outcome recorded in the package, or None if there is none.

    Raises:
        ConfigurationError: If there is no such study.
        DataError: If what is recorded is damaged.
    """
    of = study(name)
    path = resources.files("minialex.studies") / "recorded" / f"{name}.json"
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"the recorded outcome of '{name}' is damaged: {error}") from None
    return from_json(value, of)


def run_folder(out: Path, name: str) -> Path:
    """The folder of the run with a key."""
    return out / "runs" / name


def collect(of: Study, seeds: Sequence[int], out: Path, networks: measures.Networks, command: str) -> Outcome:
    """The outcome of a study from its finished runs, for the seeds that all arms have.

    Raises:
        DataError: If no seed is finished for every arm.
    """
    complete = tuple(seed for seed in seeds if not missing(of, (seed,), out))
    if not complete:
        raise DataError(f"study '{of.name}': no seed is finished for every arm; run `minialex ablate {of.name}`")
    arms, images, limits, seconds = [], {}, {}, 0.0
    for arm in of.arms:
        recipes = [of.recipe(arm, seed) for seed in complete]
        keys = tuple(key(recipe) for recipe in recipes)
        folders = [run_folder(out, name) for name in keys]
        metrics = [read_metrics(RunPaths(folder).metrics) for folder in folders]
        seconds += sum(float([r for r in found if r["kind"] == "validation"][-1]["seconds"]) for found in metrics)
        errors = tuple(measures.last_error(found) for found in metrics)
        values: tuple[float | None, ...] = errors
        curves: tuple[tuple[tuple[float, float], ...], ...] = ()
        goals: dict[str, tuple[float | None, ...]] = {}
        runs = list(zip(folders, recipes, strict=True))
        if arm.evaluate.average > 1:
            value, images[arm.name] = networks.average(folders, recipes[0])
            values, errors = (value,), ()
        elif arm.evaluate.views > 1:
            values = tuple(networks.error(folder, recipe, arm.evaluate.views) for folder, recipe in runs)
            errors = ()
        elif of.measure == "gap":
            values = tuple(error - networks.training_error(*run) for error, run in zip(errors, runs, strict=True))
        elif of.measure == "training":
            values = tuple(networks.training_error(*run) for run in runs)
        elif of.measure == "epochs":
            values = tuple(measures.epochs_to_goal(found) for found in metrics)
            limits[arm.name] = float(recipes[0].epochs)
            for goal in measures.EASIER_GOALS:
                goals[f"{goal:.0%}"] = tuple(_rounded(measures.epochs_to_goal(found, goal) for found in metrics))
            curves = tuple(tuple(thinned(measures.training_curve(found))) for found in metrics)
        elif of.measure == "start":
            classes = len(networks.data(recipes[0]).class_names)
            values = tuple(measures.steps_to_leave_chance(found, classes) for found in metrics)
            limits[arm.name] = float(max(r["step"] for r in metrics[0] if r["kind"] == "train"))
        arms.append(ArmResult(arm.name, values, keys, errors if values != errors else (), curves, goals))
    first = of.recipe(of.arms[0], complete[0])
    facts = {
        "command": command,
        "data": networks.data(first).name,
        "training_images": len(networks.data(first).train),
        "validation_images": len(networks.data(first).validation),
        "epochs": first.epochs,
        "seconds": round(seconds, 1),
        "backend": networks.backend.name,
        **machine.describe(),
    }
    return Outcome(of, complete, tuple(arms), facts, images, limits)


def missing(of: Study, seeds: Sequence[int], out: Path) -> list[tuple[Arm, int]]:
    """Arms and seeds whose runs are not finished."""
    return [
        (arm, seed)
        for seed in seeds
        for arm in of.arms
        if not measures.finished(run_folder(out, key(of.recipe(arm, seed))), of.recipe(arm, seed), of.goal)
    ]


def thinned(curve: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A limited number of points of a curve, including the last one, in few digits."""
    step = max(1, -(-len(curve) // CURVE_POINTS))
    return [(round(x, 3), round(y, 4)) for x, y in curve[::-1][::step][::-1]]
