"""Answers to the exercises of notebook 17.

What to expect of the two open ones: not run; what we expect: with twice the steps the smallest set gains
little or gets worse on new pictures, the largest gains. With few pictures of one class: its own error
rises most, those of the classes that it is confused with fall.
"""

import numpy as np


def points_per_doubling(pictures, errors):
    return -np.polyfit(np.log2(pictures), errors, 1)[0]


def competition_error(guesses, labels):
    return 1 - (guesses == labels[:, None]).any(axis=1).mean()


RIGHT = {
    "points_per_doubling": points_per_doubling,
    "competition_error": competition_error,
}
WRONG = {
    "points_per_doubling": [
        (
            lambda pictures, errors: np.polyfit(np.log2(pictures), errors, 1)[0],
            "how far it falls",
        ),
        (
            lambda pictures, errors: -np.polyfit(np.log(pictures), errors, 1)[0],
            "factor of e",
        ),
        (
            lambda pictures, errors: -np.polyfit(np.log10(pictures), errors, 1)[0],
            "factor of 10",
        ),
        (
            lambda pictures, errors: -np.polyfit(pictures, errors, 1)[0],
            "logarithm is missing",
        ),
        (
            lambda pictures, errors: (
                (errors[0] - errors[-1]) / np.log2(pictures[-1] / pictures[0])
            ),
            "fits all points",
        ),
    ],
    "competition_error": [
        (
            lambda guesses, labels: (guesses == labels[:, None]).any(axis=1).mean(),
            "share that is right",
        ),
        (lambda guesses, labels: (guesses[:, 0] != labels).mean(), "first guess alone"),
        (lambda guesses, labels: (guesses != labels[:, None]).mean(), "count pictures"),
        (lambda guesses, labels: 100 * competition_error(guesses, labels), "not percent"),
    ],
}
