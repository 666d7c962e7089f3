"""The exact mean image and colour covariance of a training set, in one pass.

Sums of bytes and of products of bytes are integers, and are kept as such. So the result does not depend on the block
size, the order of the images or the number of threads of a matrix product.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import DataError

_PIXELS = 1 << 16  # of a channel, summed at a time: they stay in the processor's cache


@dataclass(frozen=True)
class Statistics:
    """What training subtracts from images and how their colours vary, on the scale 0 to 255.

    Attributes:
        mean: the mean image, float32 [3, S, S]
        covariance: covariance of the RGB values of all pixels of all images, each channel centred on its own mean,
            float64 [3, 3] (the sum divided by the number of pixels)
    """

    mean: NDArray[np.float32]
    covariance: NDArray[np.float64]

    @property
    def eigenvalues(self) -> NDArray[np.float64]:
        """Variances along the principal components, float64 [3], largest first."""
        return self._eigen[0]

    @property
    def eigenvectors(self) -> NDArray[np.float64]:
        """The principal components, float64 [3, 3], one per index of the last axis, in the order of `eigenvalues`.

        Each has unit length, and its largest element is positive.
        """
        return self._eigen[1]

    @cached_property
    def _eigen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, vectors = np.linalg.eigh(self.covariance)  # cached: every step needs them
        values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]  # rounding may make one negative
        largest = np.argmax(np.abs(vectors), axis=0)
        return values, vectors * np.sign(vectors[largest, np.arange(3)])


class Sums:
    """Sums over images, added in any order and in any number of pieces, from which `Statistics` are computed.

    Attributes:
        images: number of images
        pixels: sum of the images, int64 [3, S, S]
        products: sums over all pixels of the products of channels, Python integers [3, 3], which cannot overflow
    """

    def __init__(self, size: int) -> None:
        self.images = 0
        self.pixels = np.zeros((3, size, size), np.int64)
        self.products = np.zeros((3, 3), object)
        # Up to a width of 258, a row's products sum to less than 2^24: exact in float32, in any order.
        self._exact = np.float32 if size <= 256 else np.float64

    def add(self, images: NDArray[np.uint8]) -> None:
        """Add images, uint8 [n, 3, S, S]."""
        sums = np.zeros(self.pixels.shape, np.int32)  # room for 8 million images
        products = np.zeros((3, 3), object)
        together = max(1, _PIXELS // self.pixels[0].size)  # else Python takes longer than small sums
        room: NDArray[np.floating[Any]] = np.empty((together, *self.pixels.shape), self._exact)
        for start in range(0, len(images), together):
            some = images[start : start + together]
            for image in some:
                np.add(sums, image, out=sums)
            channels = room[: len(some)]
            np.copyto(channels, some)
            for i in range(3):
                for j in range(i, 3):
                    rows = np.einsum("nhw,nhw->nh", channels[:, i], channels[:, j])
                    products[i, j] += int(rows.sum(dtype=np.float64))  # far below 2^53
        self.images += len(images)
        self.pixels += sums
        self.products = self.products + products + np.triu(products, 1).T

    def merge(self, other: Sums) -> None:
        """Add another object's sums."""
        self.images += other.images
        self.pixels += other.pixels
        self.products = self.products + other.products

    def statistics(self) -> Statistics:
        """The mean image and the covariance. Raises DataError: no images."""
        if self.images == 0:
            raise DataError("no images to take the mean of")
        pixels = self.images * self.pixels.shape[1] ** 2
        sums = self.pixels.sum(axis=(1, 2)).astype(object)
        # Integers until the single division.
        covariance = (pixels * self.products - np.outer(sums, sums)) / pixels**2
        return Statistics((self.pixels / self.images).astype(np.float32), covariance.astype(np.float64))
