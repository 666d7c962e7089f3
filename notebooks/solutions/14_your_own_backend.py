"""Answers to the exercises of notebook 14.

What to expect of the two open ones: `linear` may be off by its rounding, a few times 10⁻¹⁶, and is caught
from 10⁻¹⁵ on; `relu` has nothing to round, so that any ε that changes a number is caught. Bug: ties, for one,
which random numbers never have and the kit draws.
"""

import numpy as np


def repaired_norm(x, *, size, k, alpha, beta):
    channels = x.shape[1]
    scale = np.full_like(x, k)
    for c in range(channels):
        first = max(0, c - size // 2)
        last = min(channels, c - size // 2 + size)
        scale[:, c] += alpha * (x[:, first:last] ** 2).sum(axis=1)
    return x * scale**-beta, scale


def cut_short(x, *, size, k, alpha, beta):
    channels = x.shape[1]
    scale = np.full_like(x, k)
    for c in range(channels):
        scale[:, c] += alpha * (x[:, max(0, c - size // 2) : c + size // 2] ** 2).sum(
            axis=1
        )
    return x * scale**-beta, scale


RIGHT = {"repaired_norm": repaired_norm, "tanh_gradient": lambda dy, y: dy * (1 - y * y)}
WRONG = {
    "repaired_norm": [
        (cut_short, "differs from the reference"),
        (lambda x, *, size, k, alpha, beta: x, "results"),
        (lambda x, size, k, alpha, beta: (x, x), "expected (x, *, size"),
        (lambda x, *, size, k, alpha, beta: 1 // 0, "ZeroDivisionError"),
    ],
    "tanh_gradient": [
        (lambda dy, y: 1 - y * y, "differs from the reference"),
        (lambda dy, y: dy * (1 - np.tanh(y) ** 2), "differs from the reference"),
        (lambda dy, x: dy * (1 - x * x), "expected (dy, y)"),
        (3, "should be a function"),
    ],
}
