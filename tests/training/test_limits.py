"""The guards at their limits: a step before, and at, the moment when there is something to say."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex.engine.schedule import epoch_rates, parameter_rate
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex.training import guards
from minialex.training.guards import LossGuard, dead_units, dead_units_warning

TEN = Recipe().replace(classes=10)
CHANCE = math.log(10)


def told(losses: list[float]) -> list[int]:
    """After which steps, from 1, there is a warning."""
    guard = LossGuard(TEN)
    return [step for step, loss in enumerate(losses, 1) if guard.see(loss)]


def test_a_loss_at_chance_is_stuck_at_its_four_hundredth_step() -> None:
    assert told([CHANCE] * 399) == []
    assert told([CHANCE] * 1000) == [400]


def test_a_loss_that_was_better_once_is_not_stuck() -> None:
    assert told([1.5] * 60 + [CHANCE] * 1000) == []


def test_a_loss_diverges_above_twice_the_best_and_twice_chance() -> None:
    # 4.5 is more than twice the best of 2, and less than twice chance, 4.605
    assert told([2.0] * 60 + [4.5] * 200) == []
    # 6 is more than twice chance, and less than twice the best of 3.5
    assert told([3.5] * 60 + [6.0] * 200) == []
    assert told([2.0] * 60 + [5.0] * 200)


def test_a_channel_lives_that_one_image_excites(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.zeros((3, 4, 2, 2), np.float32)
    maps[1, 0, 1, 0] = 0.5  # one place of one image
    maps[:, 1] = 0.5

    def walk(session: Any, plan: Any, feed: Any, see: Any) -> None:
        see("relu1", "forward", "relu", maps[:, :2])
        see("relu1", "forward", "relu", maps[:, 2:])  # the second column
        see("relu1", "backward", "relu_backward", np.ones_like(maps))
        pytest.fail("the backward pass is of no use")

    monkeypatch.setattr(guards, "_walk", walk)
    monkeypatch.setattr(guards, "as_one", lambda session: None)
    session: Any = SimpleNamespace()
    assert dead_units(session, {}) == {"relu1": 0.5}


def test_almost_all_units_are_more_than_nine_of_ten() -> None:
    assert dead_units_warning({"relu1": 0.9}, TEN) is None
    assert "relu1 (91%)" in str(dead_units_warning({"relu1": 0.91}, TEN))


def test_a_layers_multiple_holds_for_its_biases_too() -> None:
    """In epoch 69 weights have 1e-4 and biases 0.002; those of conv1 a tenth."""
    recipe = load("code145")
    now = epoch_rates(recipe, 69, [])
    rates = [parameter_rate(recipe, now, layer, array) for layer in ("conv2", "conv1") for array in ("weight", "bias")]
    assert rates == pytest.approx([1e-4, 0.002, 1e-5, 0.0002])


@pytest.mark.parametrize(("errors", "rate"), [([0.5, 0.25, 0.25], 0.001), ([0.5, 0.25, 0.125], 0.01)])
def test_an_error_that_falls_by_exactly_the_least_improvement_has_not_improved(
    errors: list[float], rate: float
) -> None:
    """Section 5: the rate is divided when the error "stopped improving"; 1/4 and 1/8 are exact in binary."""
    recipe = Recipe().replace(patience=1, min_improvement=0.25)
    # 0.5 -> 0.25 is an improvement of exactly 0.25: none, and the rate is cut; and so on
    assert epoch_rates(recipe, 2, errors[:1]).learning_rate == 0.01
    assert epoch_rates(recipe, 3, errors[:2]).learning_rate == pytest.approx(0.001)
    less = Recipe().replace(patience=1, min_improvement=0.0625)
    assert epoch_rates(less, 4, errors).learning_rate == pytest.approx(rate)
