"""Data augmentation, paper section 4.1: crop, reflect, shift the colour; then subtract the mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numpy.floats import Floats


def augment(
    images: NDArray[np.uint8],
    mean: Floats,
    shift: Floats,
    top: NDArray[np.int32],
    left: NDArray[np.int32],
    flip: NDArray[np.uint8],
    *,
    crop: int,
    factor: float,
    mean_follows: bool,
) -> Floats:
    """y = factor · (image at the crop, reflected where flip is 1, + shift − mean); see the protocol for the indices."""
    N, C = images.shape[:2]
    inside = np.arange(crop)
    rows = (top[:, None] + inside)[:, None, :, None]  # [N,1,crop,1]
    across = np.where(flip[:, None] == 1, crop - 1 - inside, inside)
    columns = (left[:, None] + across)[:, None, None, :]  # [N,1,1,crop]
    n, c = np.arange(N)[:, None, None, None], np.arange(C)[:, None, None]
    pixels = images[n, c, rows, columns].astype(mean.dtype)
    if mean_follows:
        mean = mean[c, rows, columns]
    y: Floats = factor * (pixels + shift[:, :, None, None] - mean)
    return y
