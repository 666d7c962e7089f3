"""Checks of notebook 16: tables 1 and 2 of the paper."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, same_number
from minialex.evaluation.errors import Evaluation, wilson


@exercise
def error_interval(answer: Any) -> str:
    """A function (error, images) -> half the width of the 95 % interval, both as fractions of 1."""
    for error, images in ((0.375, 150_000), (0.41, 50_000)):
        low, high = wilson(error, images)
        truth = (high - low) / 2  # for so many images the simple formula is as good
        mistakes = [
            (truth / 1.96, "that is one standard deviation; 95 % of the time it is within 1.96 of them."),
            (2 * truth, "that is the whole width; give half of it."),
            (100 * truth, "in fractions of 1, not in percent."),
            (1.96 * error * (1 - error) / images, "the square root is missing: that is a variance."),
            (1.96 * math.sqrt(error * (1 - error)), "divide by the number of images before the root."),
        ]
        hint = "The number of wrong images is binomial: the standard deviation of its share is √(p(1 − p)/n)."
        same_number(
            call(answer, error, images),
            truth,
            f"error_interval({error}, {images})",
            mistakes,
            hint=hint,
            tolerance=5e-3,
        )
    return "on 150,000 images ±0.25 points: the table's first digits are sure, its last one is not."


@exercise
def averaged_error(answer: Any) -> str:
    """A function (probs [M,N,K], labels [N]) -> the top-1 error of the average of M networks."""
    random = np.random.default_rng(16)
    for _ in range(3):
        logits = random.normal(0, 1.5, (3, 40, 4))
        probs = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
        labels = random.integers(0, 4, 40)
        truth = Evaluation(probs.mean(axis=0), labels).error(1)
        single = float(np.mean([Evaluation(p, labels).error(1) for p in probs]))
        mistakes = [
            (single, "that is the mean of the networks' errors: average their probabilities first."),
            (1 - truth, "that is the share of right answers."),
            (100 * truth, "give a fraction of 1, not percent."),
            (round(40 * truth), "that is the number of wrong images; divide by how many there are."),
        ]
        hint = "Average over the networks, take the most probable class, compare with the labels."
        same_number(call(answer, probs, labels), truth, "the error", mistakes, hint=hint)
    return "the average is often better than each of those it is made of."
