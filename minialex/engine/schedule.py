"""The learning rate of an epoch, as a function of the recipe and of the validation errors so far."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minialex.recipe.fields import Recipe

FALLING = ("cosine", "polynomial")
"""Schedules that depend on how many epochs there will be."""

PAPER_BATCH = 128
"""Images of a step in the paper (5)."""


@dataclass(frozen=True)
class EpochRates:
    """The values that apply during one epoch.

    Attributes:
        learning_rate: ε of the weights, before the layers' multiples
        colour: standard deviation of the colour shift
        layer_rates: multiples of the learning rate by layer; 0 freezes
        finished: whether training is over before this epoch
    """

    learning_rate: float
    colour: float
    layer_rates: Mapping[str, float]
    finished: bool = False

    @property
    def frozen(self) -> frozenset[str]:
        """The layers that are not updated at all."""
        return frozenset(layer for layer, rate in self.layer_rates.items() if rate == 0)


def epoch_rates(recipe: Recipe, epoch: int, errors: Sequence[float]) -> EpochRates:
    """The values that apply in an epoch.

    Args:
        recipe: the run's recipe
        epoch: counted from 1
        errors: the validation error (a fraction of 1) after each epoch before it

    Note:
        The plateau schedule is section 5's heuristic: when the error has not fallen by more than `min_improvement` for
        `patience` epochs the rate is divided by `cut_factor`, at most `cuts` times; when it would be cut once more,
        training ends.

        The cosine schedule is that of Loshchilov and Hutter (2017), without restarts, one value per epoch; the
        polynomial one, of power 2, is that of You, Gitman and Ginsburg (2017). A warm-up (Goyal et al. 2017) raises
        any schedule's rate in equal steps, one per epoch. With `rate_scaling` all rates are for a batch of 128 images,
        and scale with the batch size.
    """
    rate, colour, layer_rates = recipe.learning_rate, recipe.colour, dict(recipe.layer_rates)
    finished = epoch > recipe.epochs
    if recipe.schedule == "plateau":
        cuts = _cuts(errors, recipe.patience, recipe.min_improvement)
        finished = finished or cuts > recipe.cuts
        rate /= recipe.cut_factor ** min(cuts, recipe.cuts)
    elif recipe.schedule == "steps":
        rate /= recipe.cut_factor ** sum(epoch >= step for step in recipe.steps)
    elif recipe.schedule in FALLING:
        done = max(0, epoch - 1 - recipe.warmup_epochs) / max(1, recipe.epochs - recipe.warmup_epochs)
        done = min(done, 1.0)
        rate *= (1 - done) ** 2 if recipe.schedule == "polynomial" else (1 + math.cos(math.pi * done)) / 2
    elif recipe.schedule == "timeline":
        for entry in sorted(recipe.timeline, key=lambda entry: int(entry["epoch"])):
            if epoch >= entry["epoch"]:
                rate = float(entry.get("learning_rate", rate))
                colour = float(entry.get("colour", colour))
                layer_rates.update(entry.get("layer_rates", {}))
    if epoch <= recipe.warmup_epochs:
        rate *= epoch / (recipe.warmup_epochs + 1)
    return EpochRates(rate * _scaling(recipe), colour, layer_rates, finished)


def _scaling(recipe: Recipe) -> float:
    """The factor of the learning rates for the batch size."""
    power = {"none": 0.0, "linear": 1.0, "square-root": 0.5}[recipe.rate_scaling]
    return float((recipe.batch_size / PAPER_BATCH) ** power)


def _cuts(errors: Sequence[float], patience: int, min_improvement: float) -> int:
    best, waited, cuts = math.inf, 0, 0
    for error in errors:
        if error < best - min_improvement:
            best, waited = error, 0
        else:
            waited += 1
        if waited == patience:
            cuts, waited = cuts + 1, 0
    return cuts


def parameter_rate(recipe: Recipe, now: EpochRates, layer: str, array: str) -> float:
    """The current learning rate of one of a layer's arrays.

    Biases use `bias_rate_factor` times the weights' rate or, with `bias_rate_fixed`, the initial rate.
    """
    rate = now.learning_rate
    if array == "bias":
        rate = recipe.bias_rate_factor * (recipe.learning_rate * _scaling(recipe) if recipe.bias_rate_fixed else rate)
    return rate * now.layer_rates.get(layer, 1.0)
