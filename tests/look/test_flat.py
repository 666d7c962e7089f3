"""The map of images: what is near in the features is near on it, and the same features give the same map."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.figures import look as figures
from minialex.look.flat import _neighbours, _squares, flat_map, principal, same_class


def groups(each: int = 15):
    random = np.random.default_rng(0)
    centres = 8.0 * np.eye(4, 12)
    labels = np.repeat(np.arange(4), each)
    order = random.permutation(len(labels))
    return (centres[labels] + random.normal(size=(len(labels), 12)))[order], labels[order]


def test_groups_stay_together_on_the_map() -> None:
    features, labels = groups()
    places = flat_map(features, steps=200)
    assert places.shape == (60, 2)
    assert np.isfinite(places).all()
    assert same_class(places, labels) > 0.95
    assert same_class(np.random.default_rng(1).normal(size=(60, 2)), labels) < 0.5


def test_the_same_features_give_the_same_map_whatever_their_shape_or_origin() -> None:
    features, _ = groups()
    places = flat_map(features, steps=50)
    assert np.array_equal(places, flat_map(features.reshape(60, 3, 4), steps=50))
    here, there = _squares(features), _squares(features + 100)
    np.testing.assert_allclose(_neighbours(there, 10), _neighbours(here, 10), atol=1e-9)


def test_neighbours_are_probabilities_that_two_points_share() -> None:
    squares = _squares(groups()[0])
    p = _neighbours(squares, 10.0)
    assert p.shape == squares.shape
    assert p.sum() == pytest.approx(1)
    assert np.array_equal(p, p.T)
    assert np.diag(p).max() == 0


def test_the_descent_lowers_what_it_descends() -> None:
    """The divergence between neighbours in the features and on the map, which the slopes are those of."""
    features, _ = groups()
    p = _neighbours(_squares(features - features.mean(axis=0)), 59 / 3)

    def divergence(places):
        close = 1 / (1 + _squares(places))
        np.fill_diagonal(close, 0)
        q = close / close.sum()
        return float((p * np.log(np.maximum(p, 1e-12) / np.maximum(q, 1e-12))).sum())

    found = [divergence(flat_map(features, steps=steps)) for steps in (1, 50, 200)]
    assert found[2] < found[1] < found[0]


def test_equal_points_and_a_single_number_make_a_map_too() -> None:
    assert np.isfinite(flat_map(np.ones((12, 5)), steps=20)).all()
    assert np.isfinite(flat_map(np.arange(12.0)[:, None], steps=20)).all()
    assert principal(np.arange(12.0)[:, None] - 5.5).shape == (12, 2)


@pytest.mark.parametrize(
    ("features", "steps", "words"),
    [
        (np.ones((9, 2)), 5, "10 to 5,000"),
        (np.ones((5001, 1)), 5, "10 to 5,000"),
        (np.ones((20, 2)), 0, "1 step or more"),
        (np.full((20, 2), np.nan), 5, "not finite"),
    ],
)
def test_what_no_map_can_be_made_of_is_refused(features, steps, words) -> None:
    with pytest.raises(ConfigurationError, match=words):
        flat_map(features, steps=steps)


def test_on_the_picture_no_image_covers_another() -> None:
    _, labels = groups()
    images = np.zeros((60, 3, 4, 4), np.uint8)
    figure = figures.flat_map(images, np.zeros((60, 2)), labels, ["a", "b", "c", "d"], "fc7")
    boxes = {tuple(np.round(image.get_extent(), 3)) for image in figure.axes[0].images}
    assert len(boxes) == 60
    assert {text.get_text() for text in figure.axes[0].texts} == {"a", "b", "c", "d"}
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts)
    assert min(np.diff(heights)) > 0.4, "names stand one above the other"
