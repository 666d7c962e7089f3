"""What an evaluation says beyond its errors: each class by itself, and whether the probabilities can be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import ConfigurationError
from minialex.evaluation.errors import Evaluation

BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class ClassScore:
    """One class.

    Attributes:
        label: its number
        images: how many were evaluated
        top1_error, top5_error: fractions of them
        probability: mean probability that they were given for this class
        taken_for: the class that most of the wrong ones were taken for; None if none was wrong
        taken: how many of them
    """

    label: int
    images: int
    top1_error: float
    top5_error: float
    probability: float
    taken_for: int | None
    taken: int


def by_class(found: Evaluation) -> list[ClassScore]:
    """Every class that has images, in the order of the labels."""
    right1, right5 = found.right(1), found.right(5)
    own = found.probs[np.arange(len(found.labels)), found.labels]
    confusion = found.confusion
    scores = []
    for label in np.unique(found.labels).tolist():
        mine = found.labels == label
        others = confusion[label].copy()
        others[label] = 0
        worst = int(others.argmax())
        scores.append(
            ClassScore(
                label,
                int(mine.sum()),
                float(1 - right1[mine].mean()),
                float(1 - right5[mine].mean()),
                float(own[mine].mean(dtype=np.float64)),
                worst if others[worst] else None,
                int(others[worst]),
            )
        )
    return scores


@dataclass(frozen=True)
class Calibration:
    """How the probability of the most probable class compares with how often it is right, in bins of equal width.

    Attributes:
        edges: float64 [B+1], from 0 to 1
        images: int64 [B], how many have a confidence in each bin
        confidence, accuracy: float64 [B], their mean confidence, and the fraction that is right; NaN in empty bins
    """

    edges: NDArray[np.float64]
    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean over the images of |accuracy − confidence| of their bin (Naeini 2015)."""
        filled = self.images > 0
        gaps = np.abs(self.accuracy - self.confidence)[filled]
        return float(np.average(gaps, weights=self.images[filled]))

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: the largest such difference of a bin."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy: positive where the network believes itself too much."""
        filled = self.images > 0
        return float(np.average((self.confidence - self.accuracy)[filled], weights=self.images[filled]))


def calibration(found: Evaluation, bins: int = BINS) -> Calibration:
    """The calibration of an evaluation's most probable classes.

    A confidence on an edge belongs to the bin below it. Source: Guo et al., "On Calibration of Modern Neural
    Networks", 2017.

    Raises:
        ConfigurationError: If there is no bin.
    """
    if bins < 1:
        raise ConfigurationError(f"calibration needs at least one bin, got {bins}")
    confidence = np.nan_to_num(found.probs.max(axis=1).astype(np.float64))
    right = found.right(1).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(place, values, bins) / images for values in (confidence, right)]
    return Calibration(edges, images.astype(np.int64), *means)


def as_json(found: Evaluation, class_names: tuple[str, ...], titles: tuple[str, ...]) -> dict[str, Any]:
    """Everything that is known of an evaluation, as JSON values; fractions of 1. Titles are names that people use."""
    measured = calibration(found)
    rows = zip(
        measured.edges, measured.edges[1:], measured.images, measured.confidence, measured.accuracy, strict=False
    )
    return {
        "images": len(found.labels),
        "top1_error": found.error(1),
        "top1_interval": found.interval(1),
        "top5_error": found.error(5),
        "top5_interval": found.interval(5),
        "loss": found.loss,
        "expected_calibration_error": measured.expected_error,
        "largest_calibration_error": measured.largest_error,
        "overconfidence": measured.overconfidence,
        "calibration": [
            {"from": float(low), "to": float(high), "images": int(n), "confidence": float(c), "accuracy": float(a)}
            for low, high, n, c, a in rows
            if n
        ],
        "classes": [
            {
                "label": score.label,
                "name": name_of(class_names, score.label),
                "title": name_of(titles, score.label),
                "images": score.images,
                "top1_error": score.top1_error,
                "top5_error": score.top5_error,
                "probability": score.probability,
                "taken_for": None if score.taken_for is None else name_of(class_names, score.taken_for),
                "taken": score.taken,
            }
            for score in by_class(found)
        ],
    }


def name_of(class_names: tuple[str, ...], label: int) -> str:
    """A class's name; a network may have more outputs than there are names."""
    return class_names[label] if label < len(class_names) else f"class {label}"
