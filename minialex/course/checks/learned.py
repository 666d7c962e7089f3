"""Checks of notebook 13: what a trained network answers, and what it finds similar."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, same_array, same_number
from minialex.figures.pictures import top_classes as library_top
from minialex.look.neighbours import nearest


@exercise
def top_classes(answer: Any) -> str:
    """A function (probs [K], count) -> the numbers of the most probable classes, the most probable first."""
    random = np.random.default_rng(13)
    for count in (5, 3):
        probs = random.permutation(np.arange(1.0, 11.0)) / 55
        truth = np.array(library_top(probs, count))
        ascending = np.argsort(probs)
        mistakes = [
            (ascending[:count], "those are the least probable: argsort begins with the smallest."),
            (truth[::-1], "the right classes, but the most probable one comes first."),
            (np.sort(truth), "the right classes, but in the order of their probability, not of their number."),
            (probs[truth], "those are the probabilities; give the numbers of the classes."),
        ]
        same_array(call(answer, probs, count), truth, f"the {count} most probable classes", mistakes, axes=("place",))
    return "as in figure 4 of the paper."


@exercise
def nearest_image(answer: Any) -> str:
    """A function (features [N,D], query [D]) -> the index of the row nearest to the query."""
    random = np.random.default_rng(14)
    for _ in range(4):
        features = random.normal(0, 1, (30, 8)) * random.uniform(0.3, 3, (30, 1))
        query = random.normal(0, 1, 8)
        truth = int(nearest(features, query[None], 1).images[0, 0])
        distances = ((features - query) ** 2).sum(axis=1)
        mistakes = [
            (int(distances.argmax()), "that is the farthest: take the smallest distance."),
            (int((features @ query).argmax()), "that is the largest product, which prefers long vectors."),
            (int(np.abs(features.sum(axis=1) - query.sum()).argmin()), "differences must be squared (or at least "
             "made positive) before they are added up: here they cancel."),
            (float(np.sqrt(distances.min())), "that is the distance; give the row's index."),
        ]  # fmt: skip
        hint = "Subtract the query from every row, square, add up along axis 1, and take argmin."
        same_number(call(answer, features, query), truth, "the index", mistakes, hint=hint)
    return "the same row that the library finds."
