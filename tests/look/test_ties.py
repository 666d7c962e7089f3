"""Moved images where probabilities are equal and where content hangs over the upper edge, counted out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex.look.kernels import column_difference
from minialex.look.neighbours import pixel_ranks
from minialex.look.sensitivity import paste, translation

PROBS = np.array([0.3, 0.2, 0.2, 0.1, 0.1, 0.1])


@pytest.mark.parametrize(("label", "rank", "within"), [(0, 0, 1), (1, 2, 1), (2, 2, 1), (3, 5, 0), (5, 5, 0)])
def test_ties_count_against_the_class_and_five_are_five(label: int, rank: int, within: int) -> None:
    session: Any = SimpleNamespace(
        recipe=SimpleNamespace(crop=8, image_size=10),
        statistics=SimpleNamespace(mean=np.full((3, 10, 10), 100.6, np.float32)),
        probabilities=lambda images: (np.tile(PROBS, (len(images), 1)), 0.0),
    )
    found = translation(session, np.zeros((1, 3, 10, 10), np.uint8), np.array([label]), reach=0.25, steps=3)
    assert found.shifts.tolist() == [-2, 0, 2]
    assert np.unique(found.ranks).tolist() == [rank]
    assert np.unique(found.within(5)).tolist() == [within]


def test_content_over_the_upper_edge_loses_its_upper_rows() -> None:
    content, ground = np.arange(1, 10, dtype=np.uint8).reshape(1, 3, 3), np.zeros((1, 5, 5), np.uint8)
    assert paste(content, ground, -2, 2)[0].tolist() == [[0, 0, 0, 4, 5], [0, 0, 0, 7, 8], *[[0] * 5] * 3]


def test_columns_of_which_kernels_are_left_out_weigh_by_those_that_are_left() -> None:
    """η² of 1, 2, 3 beside 8, by hand: of means 2 and 8 about 3.5, 3 · 1.5² + 4.5² = 27, of 29 in all."""
    scores = np.array([1.0, 2.0, 3.0, 8.0, np.nan, np.nan])
    assert column_difference(scores, 2, permutations=9).statistic == pytest.approx(27 / 29)


def test_an_image_as_near_as_a_neighbour_is_not_nearer() -> None:
    grey = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8)
    # of images at distances 1, 2 and 3 one is nearer than a neighbour at distance 2
    assert pixel_ranks(grey[:1], grey[2][None, None], grey[1:]).tolist() == [[pytest.approx(1 / 3)]]
