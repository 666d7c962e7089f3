"""Dropout, paper section 4.2: each unit is dropped with probability `rate`, by a mask drawn from a counter."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from minialex.philox import Stream, words
from minialex_numpy.floats import Floats


def dropout(x: Floats, *, rate: float, factor: float, stream: Stream) -> tuple[Floats, NDArray[np.uint8]]:
    """y = factor · x where the Philox word of (sample, element) is at least rate · 2³², else 0; returns y and mask."""
    drawn = words(stream, x.shape[0], math.prod(x.shape[1:])).reshape(x.shape)
    mask = (drawn >= int(rate * 2**32)).astype(np.uint8)
    return np.where(mask, x * factor, np.zeros_like(x)), mask


def dropout_backward(dy: Floats, mask: NDArray[np.uint8], *, factor: float) -> Floats:
    """dx = factor · dy where the unit was kept, else 0."""
    return np.where(mask, dy * factor, np.zeros_like(dy))
