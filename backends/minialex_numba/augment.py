"""Data augmentation: crop, reflect, shift the colour and take the mean off, in one pass from bytes to numbers."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool


@kernel
def augment_kernel(
    worker, begin, end, images, C, H, W, mean, follows, shift, top, left, flip, crop, factor, y, sample, channel, place
):  # fmt: skip
    """Items are rows of crops; numbers of y are `channel` apart from channel to channel, `place` from place to place."""
    kind = mean.dtype.type
    for item in range(begin, end):
        n, i = divmod(item, crop)
        for c in range(C):
            a = ((n * C + c) * H + top[n] + i) * W + left[n]
            m = (c * H + top[n] + i) * W + left[n] if follows else (c * crop + i) * crop
            b = n * sample + c * channel + i * crop * place
            colour = shift[n * C + c]
            if not flip[n]:
                for j in range(crop):
                    y[b + j * place] = factor * (kind(images[a + j]) + colour - mean[m + j])
            elif follows:
                for j in range(crop):
                    y[b + j * place] = factor * (kind(images[a + crop - 1 - j]) + colour - mean[m + crop - 1 - j])
            else:
                for j in range(crop):
                    y[b + j * place] = factor * (kind(images[a + crop - 1 - j]) + colour - mean[m + j])


def augment(
    pool: Pool,
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
    N, C, H, W = images.shape
    y = np.empty((N, C, crop, crop), mean.dtype)
    pool.run(
        augment_kernel, N * crop, images.reshape(-1), C, H, W, mean.reshape(-1), mean_follows, shift.reshape(-1),
        top, left, flip, crop, mean.dtype.type(factor), y.reshape(-1), C * crop * crop, crop * crop, 1, grain=16,
    )  # fmt: skip
    return y
