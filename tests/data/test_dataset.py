"""Parts of a data set, and reading from them straight to where images are wanted."""

import os

import numpy as np
import pytest
from PIL import Image

from minialex.data import load
from minialex.data.dataset import ArraySplit, Joined, Relabelled, Subset, read_into
from minialex.data.store.prepare import prepare
from minialex.errors import DataError

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


class Negative(ArraySplit):
    """A part that is another's but for what it says anew."""

    def read(self, indices):
        return 255 - super().read(indices)


class HandedOn:
    """A part that hands everything on to another but what it says itself."""

    def __init__(self, split):
        self.split = split

    def __getattr__(self, name):
        return getattr(self.split, name)

    def __len__(self):
        return len(self.split)

    def read(self, indices):
        return 255 - self.split.read(indices)


class Listing(Foreign):
    """A part that gives a list of arrays."""

    def __init__(self, split):
        super().__init__(split)
        self.read = lambda indices: list(255 - split.read(indices))


@pytest.mark.parametrize("kind", [lambda it: Negative(it.images, it.labels), HandedOn, Listing])
@pytest.mark.parametrize("inside", [lambda it: it, lambda it: Subset(it, np.arange(COUNT)),
                                    lambda it: Relabelled(it, np.zeros(COUNT, np.int64))])  # fmt: skip
def test_a_read_of_ones_own_is_not_passed_by(kind, inside):
    out = np.empty((COUNT, 3, 8, 8), np.uint8)
    read_into(inside(kind(arrays())), np.arange(COUNT), out)
    assert np.array_equal(out, 255 - arrays().images)


@pytest.mark.parametrize("found", [None, [], [1, 2], "images", {}])
def test_what_is_no_array_is_an_error_of_the_data(found):
    part = Foreign(arrays())
    part.read = lambda indices: found
    with pytest.raises(DataError, match=r"Foreign: images are .* correct its method read"):
        read_into(part, np.arange(2), np.empty((2, 3, 8, 8), np.uint8))


@pytest.mark.skipif(os.name == "nt", reason="a mapped file cannot be cut there")
def test_a_store_that_is_cut_short_while_it_is_read(tmp_path):
    """The pages beyond a mapped file's end would kill the process; an image was read before, so it is mapped."""
    part = load(str(store(tmp_path))).train
    part.read(np.arange(2))
    (file,) = (tmp_path / "store").glob("train-*.images")
    os.truncate(file, 100)
    with pytest.raises(DataError, match=r"train-00000\.images: 100 bytes, expected"):
        part.read(np.arange(len(part)))
