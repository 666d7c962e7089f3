"""Parts of a data set, and reading from them straight to where images are wanted."""

import numpy as np
import pytest
from PIL import Image

from minialex.data import load
from minialex.data.dataset import ArraySplit, Joined, Relabelled, Subset, read_into
from minialex.data.store.prepare import prepare

COUNT = 12


def arrays(count=COUNT):
    pixels = np.random.default_rng(count).integers(0, 256, (count, 3, 8, 8), np.uint8)
    return ArraySplit(pixels, np.arange(count) % 3)


class Foreign:
    """A part of somebody else's, with no more than a part must have."""

    def __init__(self, split):
        self.labels, self.size, self.read = split.labels, split.size, split.read

    def __len__(self):
        return len(self.labels)


def folder(place):
    for index in range(COUNT * 2):
        path = place / "photos" / f"class-{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), np.uint8)
        Image.fromarray(pixels).save(path)
    return place / "photos"


def store(place):
    prepare(folder(place), place / "store", size=8)
    return place / "store"


PARTS = {
    "array": lambda _: arrays(),
    "subset": lambda _: Subset(arrays(30), np.arange(29, 29 - COUNT, -1)),
    "joined": lambda _: Joined(arrays(5), arrays(7)),
    "relabelled": lambda _: Relabelled(arrays(), np.zeros(COUNT, np.int64)),
    "somebody's": lambda _: Foreign(arrays()),
    "somebody's subset": lambda _: Subset(Foreign(arrays(30)), np.arange(COUNT)),
    "somebody's relabelled": lambda _: Relabelled(Foreign(arrays()), np.zeros(COUNT, np.int64)),
    "folder": lambda place: load(str(folder(place)), size=8).train,
    "store": lambda place: load(str(store(place))).train,
}


@pytest.mark.parametrize("kind", PARTS)
def test_reading_to_where_images_are_wanted_is_reading(kind, tmp_path):
    part = PARTS[kind](tmp_path)
    indices = np.array([3, 0, len(part) - 1, -2, 3])
    out = np.full((5, 3, 8, 8), 7, np.uint8)
    read_into(part, indices, out)
    assert np.array_equal(out, part.read(indices))
    assert len(np.unique(out[:4].reshape(4, -1), axis=0)) == 4
    read_into(part, indices[:0], out[:0])
    for beyond in (len(part), -len(part) - 1):
        with pytest.raises(IndexError):
            read_into(part, np.array([0, beyond]), out[:2])
