"""What a data set is: two parts (training and validation) of square RGB images with labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.data.statistics import Statistics, Sums
from minialex.errors import DataError

_BLOCK_BYTES = 4 << 20  # bytes of uint8 pixels read at a time; four times as many as float32


class Split(Protocol):
    """One part of a data set. Images are read by index, so a part need not fit in memory."""

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class of every image, int64 [N]."""
        ...

    @property
    def size(self) -> int:
        """The height and width of the images, in pixels."""
        ...

    def __len__(self) -> int:
        """The number of images, N."""
        ...

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices, uint8 [n, 3, size, size], RGB; `DataError` if one cannot be read.

        An index always means the same image: one that was read may be kept instead of being read again.
        Several threads may read at once. A part that also has ``read_into(indices, out)`` reads directly to where its
        images are needed (see `read_into`).
        """
        ...


def read_into(split: Split, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Read images into `out`: with the part's own ``read_into`` if it has one, else with an extra copy.

    If a class overrides `read`, that method is used, since a ``read_into`` that it inherits, or passes on from another
    part, does not know about it.

    Args:
        indices: which images, int64 [n]
        out: filled with the images, uint8 [n, 3, size, size]

    Raises:
        DataError: an unreadable image, or images whose shape or dtype differs from that of `out`
    """
    for names in (getattr(split, "__dict__", {}), *map(vars, type(split).__mro__)):
        if "read" in names or "read_into" in names:
            if names.get("read_into") is not None:
                split.read_into(indices, out)  # type: ignore[attr-defined]
                return
            break
    found = np.asarray(split.read(indices))
    if (found.shape, found.dtype) != (out.shape, out.dtype):
        raise DataError(
            f"{type(split).__name__}: images are {found.dtype} {list(found.shape)}, expected {out.dtype} "
            f"{list(out.shape)}; correct its method read."
        )
    out[...] = found


def from_start(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Indices counted from the start, negative ones too; IndexError for those beyond the end of `count` images."""
    if len(indices) and not -count <= indices.min() <= indices.max() < count:
        raise IndexError(f"there are {count} images; asked for {indices.min()} to {indices.max()}")
    return np.where(indices < 0, indices + count, indices)


@dataclass(frozen=True)
class ArraySplit:
    """A part held in memory: images uint8 [N, 3, S, S] and labels int64 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = self.images.shape
        if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or self.labels.shape != shape[:1]:
            raise ValueError(f"images must be [N, 3, S, S] and labels [N], got {shape} and {self.labels.shape}")
        if self.images.dtype != np.uint8 or self.labels.dtype != np.int64:
            raise ValueError(f"images must be uint8 and labels int64, got {self.images.dtype}, {self.labels.dtype}")

    @property
    def size(self) -> int:
        """The height and width of the images, in pixels."""
        return int(self.images.shape[2])

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices, uint8 [n, 3, S, S] (a copy)."""
        return self.images[indices]

    def read_into(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The same, read into `out`; `indices` are int64 [n]."""
        indices = from_start(indices, len(self))
        self.images.take(indices, axis=0, out=out, mode="clip")  # mode "raise" would buffer a copy of `out`


class Subset:
    """Some images of another part: `chosen` are their indices there, int64 [N]."""

    def __init__(self, whole: Split, chosen: NDArray[np.int64]) -> None:
        self.whole, self.chosen = whole, chosen
        self.labels, self.size = whole.labels[chosen], whole.size

    def __len__(self) -> int:
        return len(self.chosen)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices of the subset, uint8 [n, 3, size, size]."""
        return self.whole.read(self.chosen[indices])

    def read_into(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The same, read into `out`."""
        read_into(self.whole, self.chosen[indices], out)


class Joined:
    """Two parts, one after the other."""

    def __init__(self, first: Split, second: Split) -> None:
        self.first, self.second, self.size = first, second, first.size
        self.labels = np.concatenate([first.labels, second.labels])

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices, uint8 [n, 3, size, size]."""
        indices = np.arange(len(self))[indices]
        out = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        late = indices >= len(self.first)
        out[~late] = self.first.read(indices[~late])
        out[late] = self.second.read(indices[late] - len(self.first))
        return out


def unwrapped(split: Split) -> tuple[Split, NDArray[np.int64]]:
    """The underlying part, and the indices of a part's images in it, int64 [N]."""
    chosen = np.arange(len(split))
    while isinstance(split, Subset):
        chosen = split.chosen[chosen]
        split = split.whole
    return split, chosen


def some(split: Split, count: int | None, *, seed: int, purpose: str) -> Split:
    """At most `count` images of a part, chosen by Philox, in their original order; for None, the whole part."""
    if count is None or count >= len(split):
        return split
    order = philox.permutation(philox.Stream(seed, philox.purpose(purpose)), len(split))
    return Subset(split, np.sort(order[:count]))


class Relabelled:
    """A part with other labels, int64 [N]."""

    def __init__(self, split: Split, labels: NDArray[np.int64]) -> None:
        self.labels, self.size, self.read = labels, split.size, split.read
        self.read_into = partial(read_into, split)

    def __len__(self) -> int:
        return len(self.labels)


def with_random_labels(split: Split, classes: int, *, seed: int) -> Split:
    """A part whose labels are drawn by Philox, with equal probability for each of `classes`.

    An image's label depends only on the seed and on its index in the whole part, so it is the same in every selection
    of images.
    """
    _, chosen = unwrapped(split)
    drawn = philox.below(philox.Stream(seed, philox.purpose("labels/random")), chosen, (classes,))
    return Relabelled(split, drawn[:, 0])


class LeftOut(NamedTuple):
    """Something in a source that was left out of the images, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class DataSet:
    """A data set: its name, its two parts, and what the labels mean."""

    name: str
    train: Split
    validation: Split
    class_names: tuple[str, ...]  # the unique name of class i (for ImageNet, the WordNet id)
    words: tuple[str, ...] = ()  # a readable name of class i, if it differs from its name
    statistics: Statistics | None = None  # of the training part, if already known
    notes: tuple[str, ...] = ()  # what to tell the user before a run: how the source was understood, what is not used
    left_out: tuple[LeftOut, ...] = ()  # files of the source that are in neither part
    measured: str = "validation images"  # what `validation` holds, if another part is to be measured

    @property
    def titles(self) -> tuple[str, ...]:
        """The text to show for each class: its words if known, otherwise its name."""
        return self.words or self.class_names

    def left_out_table(self) -> bytes:
        """What is left out and why, as the contents of ``left-out.tsv``."""
        rows = [("file", "reason"), *self.left_out]
        lines = ("\t".join(" ".join(cell.split()) for cell in row) for row in rows)
        return "".join(f"{line}\n" for line in lines).encode(errors="replace")


def statistics_of(split: Split) -> Statistics:
    """The statistics of a part of a data set, which is read once, in blocks.

    Raises:
        DataError: no images, or an unreadable one
    """
    sums = Sums(split.size)
    for block in blocks(split):
        sums.add(split.read(block))
    return sums.statistics()


def blocks(split: Split) -> Iterator[NDArray[np.int64]]:
    """Yield the indices of a part in blocks whose images take little memory."""
    rows = max(1, _BLOCK_BYTES // (3 * split.size**2))
    return (np.arange(start, min(start + rows, len(split))) for start in range(0, len(split), rows))
