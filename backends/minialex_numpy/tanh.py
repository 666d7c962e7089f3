"""The saturating unit that the paper compares ReLU with, section 3.1."""

from __future__ import annotations

import numpy as np

from minialex_numpy.floats import Floats


def tanh(x: Floats) -> Floats:
    """y = tanh x."""
    return np.tanh(x)


def tanh_backward(dy: Floats, y: Floats) -> Floats:
    """dx = dy · (1 − y²)."""
    return dy * (1 - y * y)
