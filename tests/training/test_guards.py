"""Guards: each says what is seen, the likely cause, and the field to change; none cries in a run that learns."""

from __future__ import annotations

import math

import numpy as np

from minialex.backend import registry
from minialex.data import load
from minialex.data.dataset import statistics_of
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load as load_recipe
from minialex.training.guards import PATIENCE, LossGuard, dead_units, dead_units_warning, first_not_finite

RECIPE = load_recipe("shapes").replace(classes=10, kernels=(4, 4, 4, 4, 4), features=(8, 8), batch_size=8)
DATA = load("shapes", train_images=16, validation_images=8)
INDICES = np.arange(8)


def session(recipe: Recipe = RECIPE) -> Session:
    return Session(recipe, registry.load("numpy"), ("cpu:0", "cpu:1"), statistics_of(DATA.train))


def feed(opened: Session) -> dict[str, object]:
    now = epoch_rates(opened.recipe, 1, [])
    return opened.training_feed(DATA.train.read(INDICES), DATA.train.labels[INDICES], 0, now)


def warnings(losses: list[float], recipe: Recipe = RECIPE) -> list[str]:
    guard = LossGuard(recipe)
    return [text for text in map(guard.see, losses) if text]


def test_a_loss_that_stays_at_chance() -> None:
    chance = [math.log(10) + 0.01 * (-1) ** i for i in range(PATIENCE + 100)]
    found = warnings(chance)
    assert len(found) == 1
    assert "ln(10)" in found[0]
    assert "--bias" in found[0]
    assert "--init he" in warnings(chance, RECIPE.replace(init="gaussian"))[0]


def test_a_loss_that_rises() -> None:
    found = warnings([2.0] * 60 + [9.0] * 60)
    assert len(found) == 1
    assert "--learning-rate 0.001" in found[0]


def test_a_loss_that_falls_is_left_alone() -> None:
    assert warnings([2.3 * math.exp(-i / 400) for i in range(1000)]) == []


def test_dead_units_are_seen_and_named() -> None:
    dead = session(RECIPE.replace(bias=-1e6))
    text = dead_units_warning(dead_units(dead, feed(dead)), RECIPE)
    assert text is not None
    assert "relu2 (100%)" in text
    assert "--bias 0.1" in text
    alive = session()
    assert dead_units_warning(dead_units(alive, feed(alive)), RECIPE) is None


def test_looking_changes_nothing() -> None:
    opened = session()
    before = {**opened.weights(), **{f"v{n}": a for n, a in opened.momentum().items()}}
    dead_units(opened, feed(opened))
    first_not_finite(opened, feed(opened))
    after = {**opened.weights(), **{f"v{n}": a for n, a in opened.momentum().items()}}
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_where_values_first_are_not_finite() -> None:
    weights = session().weights()
    weights["conv4.weight"][:] = 3e38
    opened = Session(RECIPE, registry.load("numpy"), ("cpu:0",) * 2, statistics_of(DATA.train), weights)
    assert first_not_finite(opened, feed(opened)) == "layer 'conv4' (forward pass)"
    weights["fc7.weight"][0, 0] = np.nan
    opened = Session(RECIPE, registry.load("numpy"), ("cpu:0",) * 2, statistics_of(DATA.train), weights)
    assert first_not_finite(opened, feed(opened)) == "the weights 'fc7.weight'"
