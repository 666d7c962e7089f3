"""The rectified linear unit, paper section 3.1."""

from __future__ import annotations

import numpy as np

from minialex_numpy.floats import Floats


def relu(x: Floats) -> Floats:
    """y = max(x, 0)."""
    return np.maximum(x, 0)


def relu_backward(dy: Floats, y: Floats) -> Floats:
    """dx = dy where the unit was on (y > 0), else 0: at 0 itself the gradient is 0."""
    return np.where(y > 0, dy, np.zeros_like(dy))
