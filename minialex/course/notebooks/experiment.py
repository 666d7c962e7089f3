"""Small experiments for the notebooks: available images, and a network trained on them in memory, within seconds."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from minialex.backend.protocol import Backend
from minialex.data import DataSet, Split, load
from minialex.engine.opening import new_session as start
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session
from minialex.errors import DataNotFound
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.recipe.fields import Recipe
from minialex.training.loop import epoch_steps


def images(train: int, validation: int, *, seed: int = 0) -> DataSet:
    """CIFAR-10's photographs if available, else the library's generated shapes; both have 32 × 32 pixels.

    ``minialex download cifar10`` gets the photographs. The result's `name` says which of the two it is.

    Args:
        train, validation: the most images of each part
        seed: chooses them

    Raises:
        DataError: If CIFAR-10 is present but damaged.
    """
    try:
        return load("cifar10", seed=seed, train_images=train, validation_images=validation)
    except DataNotFound:
        return load("shapes", seed=seed, train_images=train, validation_images=validation)


def about(data: DataSet) -> str:
    """One sentence on what the images are, for a notebook to show."""
    if data.name == "cifar10":
        kind = "photographs of CIFAR-10"
    else:
        kind = "generated shapes (for photographs, run `minialex download cifar10` and start this notebook again)"
    return (
        f"{len(data.train):,} training and {len(data.validation):,} validation images, {kind}, "
        f"{len(data.class_names)} classes, {data.train.size} × {data.train.size} pixels."
    )


@dataclass
class Trained:
    """A network that was trained, and how it went.

    Attributes:
        session: the network with its weights
        losses: mean cross-entropy of every step's batch
        step_errors: fraction of every step's batch that was wrong (before that step's update)
        validation_errors: validation error after every epoch, a fraction of 1
        seconds: training time
        stopped_at: step whose values were not finite; 0 if all were
    """

    session: Session
    losses: list[float] = field(default_factory=list)
    step_errors: list[float] = field(default_factory=list)
    validation_errors: list[float] = field(default_factory=list)
    seconds: float = 0.0
    stopped_at: int = 0

    @property
    def steps(self) -> int:
        """The number of steps done."""
        return len(self.losses)

    def training_error(self, last: int) -> float:
        """Mean error of the last `last` steps, a fraction of 1."""
        return float(np.mean(self.step_errors[-last:]))


def train(
    recipe: Recipe, data: DataSet, *, backend: Backend | None = None, validate: bool = True, steps: int | None = None
) -> Trained:
    """Train a network for the recipe's epochs, without storing anything. `minialex train` is the real thing.

    It is the same computation: the same images in the same order, the same draws and steps as a run of the recipe.

    Args:
        backend: the backend; None: the fastest on this machine
        validate: whether to validate after every epoch
        steps: stop after this many steps

    Raises:
        ConfigurationError: If recipe and data do not fit.
    """
    session = start(recipe, data, backend)
    recipe = session.recipe
    found = Trained(session)
    for epoch in range(1, recipe.epochs + 1):
        now = epoch_rates(recipe, epoch, found.validation_errors)
        with closing(epoch_steps(session, data.train, found.steps, now)) as results:
            for result in results:
                found.losses.append(result.outcome.loss)
                found.step_errors.append(float(np.mean(result.outcome.probs.argmax(axis=1) != result.labels)))
                found.seconds += result.seconds
                if not result.finite:
                    found.stopped_at = found.steps
                if found.stopped_at or found.steps == steps:
                    return found
        if validate:
            found.validation_errors.append(evaluate([session], data.validation).error(1))
    return found


def validation(session: Session, data: DataSet, *, views: int = 1) -> Evaluation:
    """A network's probabilities for the validation images, and the errors computed from them."""
    return evaluate([session], data.validation, views=views)


def with_validation(data: DataSet, other: Split) -> DataSet:
    """The data set with another validation part, e.g. its own images after something was done to them."""
    return replace(data, validation=other)


def few_pairs(differences: Iterable[float], what: str) -> str:
    """What a few paired runs say about something, as text: never more than that they are few.

    Args:
        differences: error with it minus error without it, one per seed, in points
    """
    found = np.asarray(list(differences), np.float64)
    helped = int((found < 0).sum())
    return (
        f"In {helped} of {len(found)} pairs the network with {what} was the better one; the mean difference is "
        f"{found.mean():+.1f} points, and the pairs lie between {found.min():+.1f} and {found.max():+.1f}. So few "
        "and such short runs show how it is measured, and claim nothing. A claim takes more seeds and longer training."
    )


def smoothed(values: Iterable[float], window: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The running mean of the last `window` values (of fewer at the beginning)."""
    sums = np.concatenate([[0.0], np.cumsum(np.asarray(list(values), np.float64))])
    ends = np.arange(1, len(sums))
    begins = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[begins]) / (ends - begins))
