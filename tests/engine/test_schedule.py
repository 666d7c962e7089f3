"""The learning rate of an epoch."""

from __future__ import annotations

import math

import pytest

from minialex.engine.schedule import epoch_rates, parameter_rate
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load


def test_plateau_cuts_by_ten_and_ends() -> None:
    recipe = Recipe().replace(patience=2, cuts=2, min_improvement=0.01)
    errors = [0.9, 0.8, 0.795, 0.794, 0.7, 0.70, 0.70, 0.70, 0.70]
    rates = [epoch_rates(recipe, epoch, errors[: epoch - 1]) for epoch in range(1, 11)]
    assert [round(m.learning_rate, 6) for m in rates] == [0.01] * 4 + [0.001] * 3 + [0.0001] * 3
    assert [m.finished for m in rates] == [False] * 9 + [True]  # it would be cut a third time


def test_small_improvements_do_not_add_up_to_a_reset() -> None:
    recipe = Recipe().replace(patience=3, min_improvement=0.01)
    errors = [0.5, 0.495, 0.492, 0.4905]
    assert epoch_rates(recipe, 5, errors).learning_rate == 0.001


def test_steps_and_constant() -> None:
    recipe = Recipe().replace(schedule="steps", steps=(3, 5), epochs=6)
    assert [round(epoch_rates(recipe, e, []).learning_rate, 6) for e in range(1, 7)] == [
        0.01,
        0.01,
        1e-3,
        1e-3,
        1e-4,
        1e-4,
    ]
    assert epoch_rates(recipe, 7, []).finished
    assert epoch_rates(Recipe().replace(schedule="constant"), 50, [0.5] * 49).learning_rate == 0.01


def test_cosine_after_a_warm_up() -> None:
    recipe = Recipe().replace(schedule="cosine", warmup_epochs=3, epochs=7, learning_rate=0.04)
    rates = [epoch_rates(recipe, epoch, []).learning_rate for epoch in range(1, 8)]
    assert rates[:3] == [0.01, 0.02, 0.03]
    expected = [0.04 * (1 + math.cos(math.pi * k / 4)) / 2 for k in range(4)]
    assert rates[3:] == pytest.approx(expected)
    assert rates[3] == 0.04
    assert epoch_rates(recipe, 8, []).finished
    steps = Recipe().replace(schedule="steps", steps=(2,), warmup_epochs=1)
    assert [epoch_rates(steps, epoch, []).learning_rate for epoch in (1, 2)] == [0.005, 0.001]


def test_polynomial_after_a_warm_up() -> None:
    recipe = Recipe().replace(schedule="polynomial", warmup_epochs=1, epochs=5, learning_rate=0.16)
    rates = [epoch_rates(recipe, epoch, []).learning_rate for epoch in range(1, 6)]
    assert rates == pytest.approx([0.08, 0.16, 0.09, 0.04, 0.01])  # squares of 4/4, 3/4, 2/4, 1/4


def test_cosine_without_room_is_finite() -> None:
    recipe = Recipe().replace(schedule="cosine", warmup_epochs=5, epochs=1)
    assert epoch_rates(recipe, 1, []).learning_rate == pytest.approx(0.01 / 6)


def test_the_programs_timeline() -> None:
    recipe = load("code145")
    at = {epoch: epoch_rates(recipe, epoch, []) for epoch in (1, 23, 24, 52, 69, 73, 79, 93, 94)}
    assert [at[e].learning_rate for e in (1, 23, 24, 52, 79)] == [0.01, 0.01, 0.001, 0.0001, 0.00001]
    assert (at[52].colour, at[69].colour) == (0.1, 0.0)
    assert at[69].layer_rates == {"conv1": 0.1}
    assert at[69].frozen == frozenset()
    assert at[73].frozen == {"conv1"}
    assert not at[93].finished
    assert at[94].finished


def test_rates_of_parameters() -> None:
    recipe = load("code145")
    late = epoch_rates(recipe, 60, [])
    rates = {array: parameter_rate(recipe, late, "conv1", array) for array in ("weight", "bias")}
    assert rates == {"weight": 0.0001, "bias": 0.002}  # the biases' rate is not cut
    paper = load("alexnet-2012").replace(schedule="constant", layer_rates={"fc8": 10.0})
    now = epoch_rates(paper, 1, [])
    assert parameter_rate(paper, now, "fc7", "bias") == 0.01
    assert parameter_rate(paper, now, "fc8", "weight") == 0.1


@pytest.mark.parametrize(("how", "wanted"), [("none", 0.02), ("linear", 0.16), ("square-root", 0.02 * math.sqrt(8))])
def test_rates_follow_the_batch_if_they_should(how: str, wanted: float) -> None:
    recipe = Recipe().replace(
        batch_size=1024,
        learning_rate=0.02,
        rate_scaling=how,
        warmup_epochs=1,
        bias_rate_fixed=True,
        bias_rate_factor=2.0,
    )
    assert epoch_rates(recipe, 1, []).learning_rate == pytest.approx(wanted / 2)
    now = epoch_rates(recipe, 2, [])
    assert now.learning_rate == pytest.approx(wanted)
    assert parameter_rate(recipe, now, "fc8", "bias") == pytest.approx(2 * wanted)
    usual = recipe.replace(batch_size=128)
    assert epoch_rates(usual, 2, []).learning_rate == 0.02
    assert ("rate_scaling" in recipe.to_toml()) == (how != "none")
