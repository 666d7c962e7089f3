"""The mean image and the colour covariance of a training set, in one pass and exactly.

Sums of bytes and of products of bytes are whole numbers, and they are kept as such. So the result depends on
neither the block size nor the order of the images nor the number of threads of a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import Split
from minialex.errors import DataError

_BLOCK_BYTES = 4 << 20  # of uint8 pixels read at a time; eight times as much as float64


@dataclass(frozen=True)
class Statistics:
    """What training subtracts from images and how their colours vary, on the scale 0 to 255.

    Attributes
    ----------
    mean : the mean image, float32 [3, S, S]
    covariance : of the RGB values of all pixels of all images, each channel centred on its own mean,
        float64 [3, 3] (the sum divided by the number of pixels; FACTS row 14)
    """

    mean: NDArray[np.float32]
    covariance: NDArray[np.float64]

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """Variances along the principal components, float64 [3], the largest first."""
        return self._eigen()[0]

    @property
    def eigenvectors(self) -> NDArray[np.float64]:
        """The principal components as columns, float64 [3, 3], in the order of `eigenvalues`.

        Each has unit length, and its largest element is positive.
        """
        return self._eigen()[1]

    def _eigen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, vectors = np.linalg.eigh(self.covariance)
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]  # rounding may go below zero
        largest = np.argmax(np.abs(vectors), axis=0)
        return values, vectors * np.sign(vectors[largest, np.arange(3)])


def statistics(split: Split) -> Statistics:
    """The statistics of a part of a data set, read once in blocks.

    Raises
    ------
    DataError : no images, or one that cannot be read
    """
    n, size = len(split), split.size
    if n == 0:
        raise DataError("no images to take the mean of")
    rows = max(1, _BLOCK_BYTES // (3 * size**2))
    pixel_sums = np.zeros((3, size, size), np.int64)
    products = np.zeros((3, 3), object)  # Python integers: no limit on the number of images
    for start in range(0, n, rows):
        block = split.read(np.arange(start, min(start + rows, n)))
        pixel_sums += block.sum(axis=0, dtype=np.int64)
        # Exact in float64, whatever the order of summation: a block's sums stay far below 2^53.
        channels = block.transpose(1, 0, 2, 3).reshape(3, -1).astype(np.float64)
        products += (channels @ channels.T).astype(np.int64).astype(object)
    pixels = n * size**2
    sums = pixel_sums.sum(axis=(1, 2)).astype(object)
    covariance = (pixels * products - np.outer(sums, sums)) / pixels**2  # whole numbers until the one division
    return Statistics((pixel_sums / n).astype(np.float32), covariance.astype(np.float64))
