"""Measures of a finished run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from minialex.backend.protocol import Backend
from minialex.data import DataSet
from minialex.data.dataset import Subset
from minialex.engine.opening import labelled, load_data
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session, placement_of
from minialex.errors import CheckpointError
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.recipe.fields import Recipe
from minialex.runs import checkpoint
from minialex.runs import weights_file as weights
from minialex.runs.run_folder import RunPaths, read_metrics, trained_epochs
from minialex.storage import atomic
from minialex.studies.statistics import Estimate, estimate
from minialex.studies.study import GOAL

EASIER_GOALS = (0.4, 0.5)  # on the way there
LEFT_CHANCE = 0.9  # of ln K, the loss of a guess among K classes
DIVERGED = "diverged.json"
TRAINING_IMAGES = 4000  # at most so many are used for the training error without dropout and augmentation

Metrics = Sequence[Mapping[str, Any]]


def finished(folder: Path, recipe: Recipe, goal: float | None = None) -> bool:
    """Whether a run folder holds a training run of the recipe that has reached its end or its goal."""
    path = RunPaths(folder).metrics
    if not path.is_file():
        return False
    metrics = read_metrics(path)
    validations = [r for r in metrics if r["kind"] == "validation"]
    if not validations:
        return False
    errors, last = [float(r["top1_error"]) for r in validations], int(validations[-1]["epoch"])
    if epoch_rates(recipe, last + 1, errors).finished:  # a plateau's last cut may come before the last epoch
        return True
    reached = None if goal is None else epochs_to_goal(metrics, goal)
    return reached is not None and reached <= last  # a run at its goal ends with the next validation, not before


def diverged(folder: Path) -> bool:
    """Whether a run's numbers became non-finite: in a search, the rate was too high."""
    return (folder / DIVERGED).is_file()


def epochs_done(folder: Path) -> int:
    """Trained epochs of a run folder, 0 if there is none."""
    path = RunPaths(folder).metrics
    return trained_epochs(read_metrics(path)) if path.is_file() else 0


def last_error(metrics: Metrics) -> float:
    """Top-1 error of the last validation, per cent."""
    return 100 * float([r for r in metrics if r["kind"] == "validation"][-1]["top1_error"])


def training_curve(metrics: Metrics) -> list[tuple[float, float]]:
    """Training error against epochs, as pairs (epochs, error): at each record, the mean over the epoch before it."""
    records = [r for r in metrics if r["kind"] == "train"]
    if not records:
        return []
    per_epoch = records[-1]["step"] / records[-1]["epoch"]
    steps = np.array([r["step"] for r in records], float)
    errors = np.array([1 - r["top1"] for r in records], float)
    sizes = np.diff(steps, prepend=0.0)
    points = []
    for step in steps:
        if step >= per_epoch:
            window = (steps > step - per_epoch) & (steps <= step)
            points.append((float(step / per_epoch), float(np.average(errors[window], weights=sizes[window]))))
    return points


def epochs_to_goal(metrics: Metrics, goal: float = GOAL) -> float | None:
    """Epochs until the training error, averaged over the epoch before, is first at most the goal; None if never."""
    return next((epoch for epoch, error in training_curve(metrics) if error <= goal), None)


def chance(classes: int) -> float:
    """The loss below which a network has left chance: well below ln K, the loss of a guess among K classes."""
    return LEFT_CHANCE * math.log(classes)


def steps_to_leave_chance(metrics: Metrics, classes: int) -> int | None:
    """Steps until the training loss, averaged over a record of some steps, is first below `chance`; or None."""
    below = chance(classes)
    return next((int(r["step"]) for r in metrics if r["kind"] == "train" and r["loss"] < below), None)


class Networks:
    """Evaluates the networks of finished runs, on data that is read once."""

    def __init__(self, backend: Backend, devices: str | None, place: str) -> None:
        self.backend, self.devices, self.place = backend, devices, place

    def data(self, recipe: Recipe) -> DataSet:
        """The data of a run."""
        return data_of(recipe, self.place)

    def session(self, folder: Path) -> Session:
        """The network at the end of a run."""
        last = checkpoint.latest(folder / "checkpoints", lambda message: None)
        if last is None:
            raise CheckpointError(f"{folder} has no sound checkpoint: remove the folder, and it is trained again")
        found = weights.find(last.path)
        placement = placement_of(self.backend, self.devices, found.recipe.columns)
        return Session(found.recipe, self.backend, placement, found.statistics, found.tensors)

    def validation(self, folders: Sequence[Path], recipe: Recipe, views: int = 1) -> Evaluation:
        """Evaluate the average of some runs' networks on the validation images."""
        return evaluate([self.session(folder) for folder in folders], self.data(recipe).validation, views=views)

    def training_error(self, folder: Path, recipe: Recipe) -> float:
        """Top-1 error on training images in inference mode: without dropout and augmentation; per cent."""

        def compute() -> float:
            split = labelled(recipe, self.data(recipe)).train
            few = Subset(split, np.arange(min(len(split), TRAINING_IMAGES)))
            return 100 * evaluate([self.session(folder)], few).error(1)

        return _remembered(folder / "training-error.json", compute)

    def error(self, folder: Path, recipe: Recipe, views: int) -> float:
        """Validation top-1 error with `views` views, per cent."""
        path = folder / f"views-{views}.json"
        return _remembered(path, lambda: 100 * self.validation([folder], recipe, views).error(1))

    def average(self, folders: Sequence[Path], recipe: Recipe) -> tuple[float, Estimate]:
        """The error of the networks' average, and how far it is below that of one alone, image by image (points)."""
        together = self.validation(folders, recipe)
        alone = np.mean([~self.validation([folder], recipe).right(1) for folder in folders], axis=0)
        differences = 100 * (~together.right(1) - alone)
        return 100 * together.error(1), estimate([float(value) for value in differences])


def data_of(recipe: Recipe, place: str) -> DataSet:
    """The data set of a run, read once per process; every seed has the same images."""
    name = f"{recipe.data}:{place}" if place else recipe.data
    return _loaded(json.dumps({**{field: getattr(recipe, field) for field in CHOOSE}, "data": name}))


CHOOSE = ("image_size", "resize", "skip_broken", "train_images", "validation_images")
"""Fields on which a run's images depend, besides `data`."""


@lru_cache(maxsize=4)
def _loaded(fields: str) -> DataSet:
    return load_data(replace(Recipe(), **json.loads(fields)))


def _remembered(path: Path, compute: Callable[[], float]) -> float:
    """A number that is cached beside the run that it was computed from."""
    if path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8")))
    value = compute()
    atomic.write_json(path, value)
    return value
