"""Gaussian error linear units: a layer of two methods on arrays, which needs no operation to be named."""

from __future__ import annotations

import math
from dataclasses import dataclass

from minialex.network.layers import ArrayLayer

SLOPE, CUBE = math.sqrt(2 / math.pi), 0.044715


@dataclass(frozen=True)
class GELU(ArrayLayer):
    """Hendrycks and Gimpel (2016), by their formula with tanh: y = x · Φ(x), near enough. Any shape -> the same."""

    def compute(self, xp, x):
        return x * (1 + xp.tanh(SLOPE * (x + CUBE * x * x * x))) / 2

    def gradient(self, xp, dy, x):
        t = xp.tanh(SLOPE * (x + CUBE * x * x * x))
        return dy * (1 + t + x * (1 - t * t) * SLOPE * (1 + 3 * CUBE * x * x)) / 2
