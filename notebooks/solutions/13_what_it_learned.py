"""Answers to the exercises of notebook 13.

What to expect of the two open ones: not run; what we expect: shares rise with depth, and pixels are near
conv1. Two networks: far more images than the product of the errors, and often the same answer, since hard
images are hard for both; averaging helps with the rest alone.
"""

import numpy as np


def top_classes(probs, count):
    return np.argsort(-probs)[:count]


def nearest_image(features, query):
    return int(((features - query) ** 2).sum(axis=1).argmin())


RIGHT = {"top_classes": top_classes, "nearest_image": nearest_image}
WRONG = {
    "top_classes": [
        (lambda probs, count: np.argsort(probs)[:count], "least probable"),
        (lambda probs, count: np.argsort(probs)[-count:], "most probable one comes first"),
        (lambda probs, count: np.sort(np.argsort(-probs)[:count]), "not of their number"),
        (lambda probs, count: np.sort(probs)[::-1][:count], "probabilities"),
        (lambda probs, count: np.argsort(-probs), "shape"),
    ],
    "nearest_image": [
        (
            lambda features, query: int(((features - query) ** 2).sum(axis=1).argmax()),
            "farthest",
        ),
        (lambda features, query: int((features @ query).argmax()), "long vectors"),
        (
            lambda features, query: int(
                np.abs(features.sum(axis=1) - query.sum()).argmin()
            ),
            "cancel",
        ),
        (
            lambda features, query: ((features - query) ** 2).sum(axis=1).argmin() + 40,
            "too large",
        ),
    ],
}
