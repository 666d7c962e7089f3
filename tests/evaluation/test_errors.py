"""Errors where numbers are equal or none, and evaluation of a split that no batch size divides, by several networks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex.data.dataset import ArraySplit
from minialex.data.statistics import Statistics
from minialex.engine.session import Session
from minialex.evaluation.calibration import BINS, calibration
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.recipe.toml import load
from minialex_numpy import NumpyBackend

SIX = np.array([0.30, 0.25, 0.20, 0.12, 0.08, 0.05], np.float32)


@pytest.mark.parametrize(("label", "first", "fifth"), [(0, True, True), (1, False, True), (4, False, True),
                                                       (5, False, False)])  # fmt: skip
def test_five_are_five(label: int, first: bool, fifth: bool) -> None:
    found = Evaluation(SIX[None], np.array([label]))
    assert (found.right(1)[0], found.right(5)[0]) == (first, fifth)


def test_ties_about_the_fifth_place_count_against_us() -> None:
    equal = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]], np.float32)
    assert [Evaluation(equal, np.array([label])).right(5)[0] for label in range(6)] == [True] * 3 + [False] * 3
    even = np.full((1, 6), 1 / 6, np.float32)
    assert not any(Evaluation(even, np.array([label])).right(5)[0] for label in range(6))


def test_what_is_no_number_is_wrong() -> None:
    probs = np.array([[np.nan, 0.5], [0.5, np.nan], [np.nan, np.nan]], np.float32)
    assert Evaluation(probs, np.array([0, 1, 0])).error(1) == 1.0


def test_the_confusion_has_true_classes_in_rows() -> None:
    found = Evaluation(np.eye(3, dtype=np.float32)[[1, 1, 2]], np.array([0, 0, 2]))
    assert found.confusion.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 1]]


def test_fifteen_bins_as_in_the_source_and_edges_belong_below() -> None:
    assert BINS == 15  # Guo et al. 2017, section 4
    probs = np.array([[0.6, 0.4, 0], [0.61, 0.39, 0]], np.float64)
    measured = calibration(Evaluation(probs, np.array([0, 0])), 5)
    assert measured.images.tolist() == [0, 0, 1, 1, 0]


class Echo:
    """A session whose probabilities are what the first pixels say."""

    def __init__(self, factor: float) -> None:
        self.factor, self.sizes, self.views = factor, [], set()  # type: ignore[var-annotated]

    def probabilities(self, images: Any, labels: Any, views: int) -> tuple[Any, float]:
        self.sizes.append(len(images))
        self.views.add(views)
        return images[:, :2, 0, 0] * self.factor, 0.0


def test_every_image_counts_once_whatever_the_batch_and_networks_are_averaged() -> None:
    images = np.arange(7 * 3 * 4, dtype=np.uint8).reshape(7, 3, 2, 2)
    split = ArraySplit(images, np.array([0, 1, 0, 1, 0, 1, 1]))
    one, three = Echo(1.0), Echo(3.0)
    done: list[int] = []
    sessions: Any = [one, three]
    found = evaluate(sessions, split, views=10, batch_size=3, progress=done.append)
    np.testing.assert_array_equal(found.probs, 2.0 * images[:, :2, 0, 0])
    assert found.labels.tolist() == split.labels.tolist()
    assert (one.sizes, three.sizes, done, one.views) == ([3, 3, 1], [3, 3, 1], [3, 6, 7], {10})
    # a mean over batches would count the last image three times
    assert found.error(1) == pytest.approx(3 / 7)


def test_ten_views_are_the_mean_of_ten() -> None:
    recipe = load("small").replace(classes=3, kernels=(2, 2, 2, 2, 2), features=(4, 4))
    size, crop = recipe.image_size, recipe.crop
    mean = np.full((3, size, size), 120, np.float32)
    session = Session(recipe, NumpyBackend(), ("cpu:0",) * recipe.columns, Statistics(mean, np.eye(3)))
    images = np.random.default_rng(0).integers(0, 256, (2, 3, size, size)).astype(np.uint8)
    labels = np.array([0, 2])
    last, centre = size - crop, (size - crop) // 2
    offsets = [(0, 0), (0, last), (last, 0), (last, last), (centre, centre)]
    margin = [np.zeros_like(images) for _ in range(10)]
    wanted, losses = [], []
    for canvas, (flip, (top, left)) in zip(margin, ((f, o) for f in (0, 1) for o in offsets), strict=True):
        part = images[..., top : top + crop, left : left + crop]
        canvas[..., centre : centre + crop, centre : centre + crop] = part[..., ::-1] if flip else part
        probs, loss = session.probabilities(canvas, labels, 1)
        wanted.append(probs)
        losses.append(loss)
    probs, loss = session.probabilities(images, labels, 10)
    np.testing.assert_allclose(probs, np.mean(wanted, axis=0), rtol=1e-5)
    assert loss == pytest.approx(np.mean(losses), rel=1e-5)
