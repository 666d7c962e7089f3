"""Evaluation beyond error rates: each class separately, and whether the probabilities can be trusted."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import ConfigurationError
from minialex.evaluation.errors import Evaluation

BINS = 15  # as in Guo et al. 2017


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class.

    Attributes:
        label: the class's number
        images: number of images evaluated
        top1_error, top5_error: as fractions of them
        probability: mean probability given to this class for them
        taken_for: the class that the wrong ones were most often mistaken for; None if none was wrong
        taken: how often that was
    """

    label: int
    images: int
    top1_error: float
    top5_error: float
    probability: float
    taken_for: int | None
    taken: int


def by_class(evaluation: Evaluation) -> list[ClassScore]:
    """The scores of every class with images, in the order of the labels."""
    rights = evaluation.right(1), evaluation.right(5)
    own = evaluation.own
    confusion = evaluation.confusion
    scores = []
    for label in np.unique(evaluation.labels).tolist():
        mine = evaluation.labels == label
        others = confusion[label].copy()
        others[label] = 0
        worst = int(others.argmax())
        top1, top5 = (float(1 - right[mine].mean()) for right in rights)
        probability = float(own[mine].mean(dtype=np.float64))
        taken_for = worst if others[worst] else None
        scores.append(ClassScore(label, int(mine.sum()), top1, top5, probability, taken_for, int(others[worst])))
    return scores


@dataclass(frozen=True)
class Calibration:
    """Confidence, the most probable class's probability, compared with accuracy, in bins of equal width.

    Attributes:
        edges: float64 [B+1], from 0 to 1
        images: int64 [B], number of images with a confidence in each bin
        confidence, accuracy: float64 [B], their mean confidence and the fraction correct; NaN in empty bins
    """

    edges: NDArray[np.float64]
    images: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: the mean over images of their bin's |accuracy − confidence| (Naeini 2015)."""
        return self._mean(np.abs(self.accuracy - self.confidence))

    @property
    def largest_error(self) -> float:
        """Maximum calibration error: the largest such difference of any bin."""
        return float(np.nanmax(np.abs(self.accuracy - self.confidence)))

    @property
    def overconfidence(self) -> float:
        """Mean confidence minus accuracy: positive if the network is overconfident."""
        return self._mean(self.confidence - self.accuracy)

    def _mean(self, gaps: NDArray[np.float64]) -> float:
        filled = self.images > 0
        return float(np.average(gaps[filled], weights=self.images[filled]))


def calibration(evaluation: Evaluation, bins: int = BINS) -> Calibration:
    """The calibration of an evaluation's most probable classes.

    A confidence on an edge belongs to the bin below it. Source: Guo et al., "On Calibration of Modern Neural
    Networks", 2017.

    Raises:
        ConfigurationError: If there are no bins.
    """
    if bins < 1:
        raise ConfigurationError(f"calibration needs at least one bin, got {bins}")
    confidence = np.nan_to_num(evaluation.probs.max(axis=1).astype(np.float64))
    right = evaluation.right(1).astype(np.float64)
    edges = np.linspace(0, 1, bins + 1)
    bin_ = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
    images = np.bincount(bin_, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(bin_, values, bins) / images for values in (confidence, right)]
    return Calibration(edges, images.astype(np.int64), *means)


def as_json(evaluation: Evaluation, class_names: tuple[str, ...], titles: tuple[str, ...]) -> dict[str, Any]:
    """Everything known of an evaluation, as JSON values; fractions of 1. Titles are readable class names."""
    bins = calibration(evaluation)
    rows = zip(bins.edges, bins.edges[1:], bins.images, bins.confidence, bins.accuracy, strict=False)
    return {
        "images": len(evaluation.labels),
        "top1_error": evaluation.error(1),
        "top1_interval": evaluation.interval(1),
        "top5_error": evaluation.error(5),
        "top5_interval": evaluation.interval(5),
        "loss": evaluation.loss,
        "expected_calibration_error": bins.expected_error,
        "largest_calibration_error": bins.largest_error,
        "overconfidence": bins.overconfidence,
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
                **asdict(score),
                "taken_for": None if score.taken_for is None else name_of(class_names, score.taken_for),
            }
            for score in by_class(evaluation)
        ],
    }


def name_of(class_names: tuple[str, ...], label: int) -> str:
    """A class's name; a network may have more outputs than there are names."""
    return class_names[label] if label < len(class_names) else f"class {label}"
