"""Answers to the exercises of notebook 16.

What to expect of the two open ones: for a half width of 0.05 points about two million images each; for the
same images only those count on which the two disagree. The two means (not run; what we expect) differ by less
than the interval; each further network brings less, as the mean of correlated errors levels off.
"""

import math


def error_interval(error, images):
    return 1.96 * math.sqrt(error * (1 - error) / images)


def averaged_error(probs, labels):
    return float((probs.mean(axis=0).argmax(axis=1) != labels).mean())


RIGHT = {"error_interval": error_interval, "averaged_error": averaged_error}
WRONG = {
    "error_interval": [
        (
            lambda error, images: math.sqrt(error * (1 - error) / images),
            "one standard deviation",
        ),
        (lambda error, images: 2 * error_interval(error, images), "whole width"),
        (lambda error, images: 100 * error_interval(error, images), "not in percent"),
        (lambda error, images: 1.96 * error * (1 - error) / images, "square root"),
        (lambda error, images: 1.96 * math.sqrt(error * (1 - error)), "number of images"),
    ],
    "averaged_error": [
        (
            lambda probs, labels: float((probs.argmax(axis=2) != labels).mean()),
            "average their probabilities",
        ),
        (lambda probs, labels: 1 - averaged_error(probs, labels), "right answers"),
        (lambda probs, labels: 100 * averaged_error(probs, labels), "not percent"),
        (
            lambda probs, labels: round(averaged_error(probs, labels) * len(labels)),
            "number of wrong images",
        ),
    ],
}
