"""Training images that stay on the devices: where all of them fit, later epochs read none from the host."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.arrays import Array
from minialex.backend.hearing import hearer
from minialex.backend.protocol import Backend
from minialex.data.dataset import Split
from minialex.data.loader import Batch, batches, count

Take = Callable[[NDArray[np.int64], str], Array]
"""Some of the images, by their indices, on a device."""

BLOCK = 64 << 20
"""Bytes of images that are read and sent together, at most."""


@dataclass(frozen=True)
class Rows:
    """Some images on the devices, in place of an array of images."""

    take: Take
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, part: slice) -> Rows:
        return Rows(self.take, self.indices[part])

    def on(self, device: str) -> Array:
        """They themselves, uint8 [n,3,S,S]."""
        return self.take(self.indices, device)


Images = NDArray[np.uint8] | Rows
"""A batch, uint8 [n,3,S,S]: on the host, or on the devices."""


@dataclass(frozen=True)
class Kept:
    """All images of a split, on the devices."""

    take: Take
    labels: NDArray[np.int64]

    def batches(
        self, order: NDArray[np.int64], batch_size: int, start: int = 0
    ) -> Generator[tuple[NDArray[np.int64], Rows, NDArray[np.int64]], None, None]:
        """Whole batches in a given order, like `minialex.data.batches`."""
        for number in range(start, count(len(order), batch_size)):
            indices = order[number * batch_size : (number + 1) * batch_size]
            yield indices, Rows(self.take, indices), self.labels[indices]


def keep(backend: Backend, devices: Sequence[str], split: Split, **reading: Any) -> Kept | None:
    """Read all images once and leave them on the devices; None if the backend cannot keep them, or has no room.

    Args:
        reading: how they are read: ``workers`` and ``empty`` of `minialex.data.batches`

    Raises:
        DataError: If an image is unreadable.
    """
    keep_rows = getattr(backend, "keep_rows", None)
    if keep_rows is None or not len(split):
        return None
    shape = (len(split), 3, split.size, split.size)
    size = max(1, BLOCK // (3 * split.size**2))

    def blocks() -> Iterator[NDArray[np.uint8]]:
        done, tell = 0, hearer()
        block: Batch
        for block in batches(split, np.arange(len(split)), size, drop_last=False, **reading):
            tell("copying the images to where they are needed", done, len(split), "images")
            yield block[1]
            done += len(block[0])

    take = keep_rows(blocks(), shape, devices)
    return None if take is None else Kept(take, np.asarray(split.labels))
