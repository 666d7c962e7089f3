"""Checks of notebook 17: more pictures, and the competition."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, same_number
from minialex.evaluation.errors import Evaluation


@exercise
def points_per_doubling(answer: Any) -> str:
    """A function (pictures [n], errors [n] in percent) -> by how many points the error falls at each doubling."""
    for pictures, errors in (
        ([1000, 2000, 4000, 8000], [60.0, 54.0, 49.0, 43.0]),
        ([200_000, 400_000, 600_000, 800_000, 1_200_000], [69.5, 60.7, 57.5, 56.2, 52.9]),
    ):
        count, error = np.asarray(pictures, float), np.asarray(errors)
        slope = {base: float(np.polyfit(log(count), error, 1)[0]) for base, log in _LOGS.items()}
        truth = -slope[2]
        mistakes = [
            (-truth, "the error *falls* by as much: the slope is negative, give how far it falls."),
            (-slope["e"], "that is for each factor of e = 2.718…: take the logarithm to base 2."),
            (-slope[10], "that is for each factor of 10: take the logarithm to base 2."),
            (-float(np.polyfit(count, error, 1)[0]), "that is for each picture more: the logarithm is missing."),
            ((error[0] - error[-1]) / np.log2(count[-1] / count[0]), "that looks at the first and the last alone: take "
             "the straight line that fits all points best."),
        ]  # fmt: skip
        hint = "np.polyfit(np.log2(pictures), errors, 1) gives slope and height of the line that fits best."
        found = call(answer, count, error)
        same_number(found, truth, f"for errors of {errors}", mistakes, hint=hint, tolerance=1e-4)
    return "the second list is that of AlexNet on parts of ImageNet."


_LOGS: dict[object, Any] = {2: np.log2, "e": np.log, 10: np.log10}


@exercise
def competition_error(answer: Any) -> str:
    """A function (guesses [N,5], labels [N]) -> the share of pictures of which none of the five guesses is right."""
    random = np.random.default_rng(17)
    for pictures, classes in ((40, 12), (60, 30)):
        probs = random.random((pictures, classes))
        labels = random.integers(0, classes, pictures)
        guesses = np.argsort(-probs, axis=1)[:, :5]
        truth = Evaluation(probs / probs.sum(axis=1, keepdims=True), labels).error(5)
        same = guesses == labels[:, None]
        mistakes = [
            (1 - truth, "that is the share that is right."),
            (float((~same[:, 0]).mean()), "that asks for the first guess alone: the top-1 error."),
            (float((~same).mean()), "that counts wrong guesses, and four of five must be wrong: count pictures."),
            (round(truth * pictures), "that is how many; divide by the number of pictures."),
            (100 * truth, "give a fraction of 1, not percent."),
        ]
        hint = "Compare guesses with labels[:, None]; a picture is wrong if nothing in its row is equal."
        same_number(call(answer, guesses, labels), truth, "the error", mistakes, hint=hint)
    return "15.3% in 2012, by seven networks together."
