"""Answers to the exercises of notebook 05, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: b = c / (2 + 10⁻⁴ c²)^0.75 is largest at c = √(k / 2.5α) = 200, with 52,
and then falls like 1/√c: louder means quieter. RMSNorm: `size=64` (windows that reach all 32 channels), a
tiny `k`, `alpha=1/32`, `beta=0.5`; ten times the input changes nothing, a shift does.
"""

import numpy as np


def window(channel, size, channels):
    return list(
        range(max(0, channel - size // 2), min(channels, channel - size // 2 + size))
    )


def normalise(a, size, k, alpha, beta):
    sums = np.array([(a[window(c, size, len(a))] ** 2).sum() for c in range(len(a))])
    return a / (k + alpha * sums) ** beta


RIGHT = {"window": window, "normalise": normalise, "alpha_for_torch": 5e-4}
WRONG = {
    "window": [
        (lambda c, n, channels: range(c - n // 2, c + n // 2 + 1), "does not exist"),
        (
            lambda c, n, channels: range(max(0, c - n // 2), min(channels, c + n // 2)),
            "lacks",
        ),
        (lambda c, n, channels: [i for i in window(c, n, channels) if i != c], "itself"),
        (lambda c, n, channels: range(max(0, c - n), min(channels, c + n + 1)), "too many"),
        (lambda c, n, channels: n, "list of channel numbers"),
    ],
    "normalise": [
        (lambda a, n, k, alpha, beta: normalise(a, n, k, alpha / n, beta), "divide"),
        (lambda a, n, k, alpha, beta: a / (k + alpha * a**2) ** beta, "own square"),
        (
            lambda a, n, k, alpha, beta: a / (k + alpha * (a**2).sum()) ** beta,
            "all channels",
        ),
        (lambda a, n, k, alpha, beta: normalise(a, n, k, alpha, 1.0), "exponent"),
        (lambda a, n, k, alpha, beta: normalise(a, n, 0, alpha, beta), "k is missing"),
        (lambda a, n, k, alpha, beta: normalise(a, n, 1, alpha, beta), "k = 1"),
        (lambda a, n, k, alpha, beta: normalise(a, 3, k, alpha, beta), "numbers differ"),
    ],
    "alpha_for_torch": [
        (1e-4, "2e-5"),
        (2e-5, "wrong way"),
        (25e-4, "not twice"),
        (1.0, "too large"),
        ([], "number"),
    ],
}
