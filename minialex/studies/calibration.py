"""Runs the search for learning rates: which runs it still needs, and what it found (see `minialex.studies.search`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minialex.errors import ConfigurationError
from minialex.runs.run_folder import RunPaths, read_metrics
from minialex.runs.weights_file import recipe_of
from minialex.studies import measures, search
from minialex.studies.outcome import run_folder
from minialex.studies.running import Job, unfinished
from minialex.studies.study import GOAL, Arm, Study, key


def explore(study: Study, arm: Arm, out: Path) -> tuple[dict[float, list[float]], list[Job]]:
    """The results of finished runs for an arm's learning rates, and the runs that the search needs next.

    Returns:
        The tuning curve, one value per seed by rate; and jobs, none once the best rate is inside the range tried.

    Raises:
        ConfigurationError: If the study defines no search, or the search did not converge.
    """
    if not study.calibration:
        raise ConfigurationError(f"study '{study.name}' has no [calibration]: nothing to look for")
    curve: dict[float, list[float]] = {}
    while rates := search.next_rates(curve, study.grid(arm)):
        jobs = [
            Job(
                study.search_recipe(arm, seed, rate),
                f"{study.name}: {arm.name}, rate {rate:g}, seed {seed}",
                may_diverge=True,
                goal=study.goal,
            )
            for seed in study.calibration["seeds"]
            for rate in rates
        ]
        if unfinished(jobs, out):
            return curve, jobs
        for job in jobs:
            curve.setdefault(job.recipe.learning_rate, []).append(value(study, run_folder(out, key(job.recipe))))
    return dict(sorted(curve.items())), []


def needed(studies: Sequence[Study], out: Path) -> list[Job]:
    """The runs that the searches of some studies need next, each once."""
    jobs = [job for study in studies for arm in study.arms if not arm.rate_of for job in explore(study, arm, out)[1]]
    return unfinished(jobs, out)


def chosen(study: Study, out: Path) -> dict[str, Any]:
    """The result of a finished search, as stored in ``NAME.rates.toml``: ``rates`` by arm, and all its ``evidence``."""
    rates, evidence = {}, []
    for arm in study.arms:
        if not arm.rate_of:
            curve, _ = explore(study, arm, out)
            rates[arm.name] = search.best(curve)[0]
            evidence += [
                {"arm": arm.name, "rate": rate, "seed": seed, "value": round(found, 4),
                 "key": key(study.search_recipe(arm, seed, rate))}
                for rate, values in curve.items()
                for seed, found in zip(study.calibration["seeds"], values, strict=True)
            ]  # fmt: skip
    return {"rates": rates, "evidence": evidence}


def value(study: Study, folder: Path) -> float:
    """What the search minimises: the last validation error, or the study's own measure if that is different.

    That may be the training error of the last epoch, the epochs to the goal (figure 1), or the steps until the loss has
    left chance. A failure is infinite.

    For rates that do not reach the goal, the remaining training error above it, in points, is added to the number of
    epochs, or the remaining loss to the number of steps, so that they are ordered, too.
    """
    if measures.diverged(folder):
        return math.inf
    metrics: Sequence[Mapping[str, Any]] = read_metrics(RunPaths(folder).metrics)
    if study.measure in ("error", "gap"):
        return measures.last_error(metrics)
    if study.measure == "start":
        classes, last = recipe_of(folder).classes, [r for r in metrics if r["kind"] == "train"][-1]
        steps = measures.steps_to_leave_chance(metrics, classes)
        return steps if steps is not None else last["step"] * last["loss"] / measures.chance(classes)
    end, error = measures.training_curve(metrics)[-1]
    if study.measure == "training":
        return 100 * error
    epochs = measures.epochs_to_goal(metrics)
    return epochs if epochs is not None else end + 100 * (error - GOAL)
