"""The update rule, paper section 5: stochastic gradient descent with momentum and weight decay inside the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numpy.floats import Floats


def sgd_update(
    w: Floats, v: Floats, dw: Floats, *, learning_rate: float, momentum: float, weight_decay: float
) -> NDArray[np.int64]:
    """v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v, in place; returns how many non-finite elements were skipped."""
    new_v = momentum * v - weight_decay * learning_rate * w - learning_rate * dw
    new_w = w + new_v
    finite = np.isfinite(new_w)  # a non-finite v makes w non-finite
    np.copyto(v, new_v, where=finite)
    np.copyto(w, new_w, where=finite)
    return np.array(finite.size - np.count_nonzero(finite), np.int64)
