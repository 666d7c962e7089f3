"""Colour selectivity of kernels, and the permutation test between columns."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.look.kernels import colour_selectivity, colour_share, column_difference


def test_grey_kernels_have_none_and_opponent_ones_nothing_else() -> None:
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.normal(size=(4, 1, 3, 3)), 3, axis=1)
    opposite = rng.normal(size=(4, 1, 3, 3)) * np.array([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
    assert colour_selectivity(grey) == pytest.approx(np.zeros(4), abs=1e-12)
    assert colour_selectivity(opposite) == pytest.approx(np.ones(4))
    both = colour_selectivity(grey / np.linalg.norm(grey) + opposite / np.linalg.norm(opposite))
    assert (both > 0).all()
    assert (both < 1).all()
    assert colour_share(grey) == pytest.approx(0, abs=1e-12)
    assert colour_share(opposite) == pytest.approx(1)


def test_random_weights_have_two_thirds_and_scale_changes_nothing() -> None:
    weights = np.random.default_rng(0).normal(size=(4000, 3, 5, 5)).astype(np.float32)
    scores = colour_selectivity(weights)
    assert scores.mean() == pytest.approx(2 / 3, abs=0.01)
    assert colour_share(weights) == pytest.approx(2 / 3, abs=0.01)
    np.testing.assert_allclose(colour_selectivity(weights * 7), scores)


def test_a_grey_image_added_to_the_colour_is_seen_by_the_grey_part_alone() -> None:
    """What the score means: a kernel's response to a grey image is that of its grey part."""
    rng = np.random.default_rng(1)
    kernel, grey = rng.normal(size=(3, 5, 5)), np.repeat(rng.normal(size=(1, 5, 5)), 3, axis=0)
    part = np.repeat(kernel.mean(axis=0, keepdims=True), 3, axis=0)
    assert (kernel * grey).sum() == pytest.approx((part * grey).sum())
    assert colour_selectivity(kernel[None])[0] == pytest.approx(1 - (part**2).sum() / (kernel**2).sum())


def test_kernels_of_zeros_have_no_score() -> None:
    assert np.isnan(colour_selectivity(np.zeros((1, 3, 2, 2)))).all()
    assert math.isnan(colour_share(np.zeros((1, 3, 2, 2))))


def test_other_channels_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="three channels"):
        colour_selectivity(np.zeros((4, 48, 5, 5)))


def test_the_p_value_is_that_of_all_divisions() -> None:
    """Against every one of the C(8, 4) = 70 divisions, counted out; the means' difference orders them as η² does."""
    scores = np.array([0.1, 0.5, 0.2, 0.35, 0.9, 0.4, 0.45, 0.8])
    observed = abs(scores[:4].mean() - scores[4:].mean())
    larger = 0
    for chosen in itertools.combinations(range(8), 4):
        rest = np.delete(np.arange(8), chosen)
        larger += abs(scores[list(chosen)].mean() - scores[rest].mean()) >= observed - 1e-12
    exact = larger / 70
    found = column_difference(scores, 2, permutations=20_000)
    assert found.p_value == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert found.means == pytest.approx((scores[:4].mean(), scores[4:].mean()))
    between = 4 * ((scores[:4].mean() - scores.mean()) ** 2 + (scores[4:].mean() - scores.mean()) ** 2)
    assert found.statistic == pytest.approx(between / ((scores - scores.mean()) ** 2).sum())


def test_columns_made_different_are_found_and_their_order_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    grey, colour = rng.normal(0.1, 0.05, 48), rng.normal(0.6, 0.2, 48)
    one, other = (column_difference(np.concatenate(pair), 2) for pair in ((grey, colour), (colour, grey)))
    assert one.p_value == 1 / 10_000
    assert one.statistic == pytest.approx(other.statistic)


def test_columns_of_one_kind_give_p_values_that_are_spread_evenly() -> None:
    rng = np.random.default_rng(3)
    found = np.array([column_difference(rng.uniform(size=24), 2, permutations=199).p_value for _ in range(200)])
    for share in (0.1, 0.5, 0.9):
        assert (found <= share).mean() == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / 200))


def test_equal_scores_differ_in_nothing() -> None:
    found = column_difference(np.full(8, 0.25), 2, permutations=99)
    assert (found.statistic, found.p_value) == (0.0, 1.0)


@pytest.mark.parametrize(("scores", "columns"), [(8, 1), (9, 2), (0, 2)])
def test_what_cannot_be_compared_is_refused(scores: int, columns: int) -> None:
    with pytest.raises(ConfigurationError, match="cannot be compared"):
        column_difference(np.zeros(scores), columns)


def test_a_column_without_scores_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="nothing to compare"):
        column_difference(np.array([np.nan, np.nan, 0.5, 0.2]), 2)
