"""Answers to the exercises of notebook 04, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: 7.4, 11.1 and 33: always above; for small deviations s it is ln 1000 +
s²/2. Small logits in fc8 begin at ln 1000, and not above it. Border (not run): where the product over the
layers lets differences between images through to fc8 that are not tiny beside 1.
"""

import numpy as np


def guessing_loss(classes):
    return -np.log(1 / classes)


def he_std(channels, size):
    return np.sqrt(2 / (channels * size**2))


def dead_share(activations):
    return np.mean((activations == 0).all(axis=(0, 2, 3)))


RIGHT = {"guessing_loss": guessing_loss, "he_std": he_std, "dead_share": dead_share}
WRONG = {
    "guessing_loss": [
        (lambda classes: np.log(1 / classes), "sign"),
        (np.log10, "natural"),
        (lambda classes: 1 / classes, "minus its logarithm"),
        (lambda classes: 1 - 1 / classes, "error of guessing"),
        (lambda classes: 6.9, "too small"),
    ],
    "he_std": [
        (lambda channels, size: 2 / (channels * size**2), "variance"),
        (lambda channels, size: np.sqrt(1 / (channels * size**2)), "makes up"),
        (lambda channels, size: np.sqrt(2 / channels), "products"),
        (lambda channels, size: np.sqrt(2 / (channels * size)), "two sides"),
        (lambda channels, size: 0.01, "one value"),
        (lambda channels: 0.1, "TypeError"),
    ],
    "dead_share": [
        (lambda y: np.mean(y == 0), "share of zeros"),
        (lambda y: (y == 0).all(axis=(0, 2, 3)).sum(), "divide by"),
        (lambda y: np.mean((y > 0).any(axis=(0, 2, 3))), "that live"),
        (lambda y: np.mean((y == 0).all(axis=(2, 3))), "some images only"),
        (lambda y: np.mean((y == 0).any(axis=(0, 2, 3))), "all must be zero"),
        (lambda y: 0.5, "too large"),
    ],
}
