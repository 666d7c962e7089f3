"""Which number of a draw is which, and how many batches there are, counted out."""

from __future__ import annotations

import numpy as np
import pytest

from minialex import philox
from minialex.data import loader
from minialex.data.dataset import ArraySplit, Subset, with_random_labels
from minialex.data.draws import epoch_order, training_draws
from minialex.data.statistics import Statistics


def test_top_and_left_are_the_first_and_the_second_word_of_a_sample() -> None:
    statistics = Statistics(np.zeros((3, 32, 32), np.float32), np.eye(3))
    draws = training_draws(64, seed=0, step=5, size=32, crop=28, statistics=statistics)
    stream = philox.Stream(0, philox.purpose("crop"), step=5)
    rows, columns = philox.below(stream, np.arange(64), (5, 5)).T
    assert draws.top.tolist() == rows.tolist()
    assert draws.left.tolist() == columns.tolist()
    assert rows.tolist() != columns.tolist()


def test_shuffled_once_is_the_order_of_epoch_0() -> None:
    once = [epoch_order(50, seed=3, epoch=epoch, shuffle="once").tolist() for epoch in (1, 2, 7)]
    assert once == [epoch_order(50, seed=3, epoch=0).tolist()] * 3
    assert once[0] != epoch_order(50, seed=3, epoch=1).tolist()


@pytest.mark.parametrize(
    ("images", "size", "whole", "some"), [(20, 5, 4, 4), (21, 5, 4, 5), (4, 5, 0, 1), (5, 5, 1, 1)]
)
def test_batches_are_counted(images: int, size: int, whole: int, some: int) -> None:
    assert (loader.count(images, size), loader.count(images, size, drop_last=False)) == (whole, some)
    split = ArraySplit(np.zeros((images, 3, 2, 2), np.uint8), np.zeros(images, np.int64))
    found = [len(labels) for _, _, labels in loader.batches(split, np.arange(images), size, drop_last=False)]
    assert found == [min(size, images - begin) for begin in range(0, images, size)]


def test_random_labels_are_of_the_seed_and_the_image_alone() -> None:
    pixels = (np.arange(4000 * 12) % 251).astype(np.uint8).reshape(4000, 3, 2, 2)
    whole = ArraySplit(pixels, np.zeros(4000, np.int64))
    drawn = with_random_labels(whole, 10, seed=3)
    again = philox.below(philox.Stream(3, philox.purpose("labels/random")), 4000, (10,))[:, 0]
    assert drawn.labels.tolist() == again.tolist()
    counts = np.bincount(drawn.labels, minlength=10)
    assert counts.sum() == 4000
    assert np.abs(counts - 400).max() < 5 * np.sqrt(360), "each class as likely as another"
    assert with_random_labels(whole, 10, seed=4).labels.tolist() != drawn.labels.tolist()
    chosen = np.array([7, 1, 3999])
    part = with_random_labels(Subset(Subset(whole, np.arange(4000)[::-1]), 3999 - chosen), 10, seed=3)
    assert part.labels.tolist() == drawn.labels[chosen].tolist(), "whichever images are taken"
    assert (part.read(np.arange(3)) == whole.images[chosen]).all()
    assert (len(part), part.size) == (3, 2)
