"""The search for learning rates ends inside of what it tried, and no verdict rests on one that did not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minialex.errors import ConfigurationError
from minialex.recipe.toml import load
from minialex.studies import calibration, search
from minialex.studies.search import Curve
from minialex.studies.study import Study, key, parse

TEXT = """
title = "Width of the windows"
question = "q"
section = "1"
claim = "c"
measure = "error"
base = "small"
expect = "worse"
seeds = [1, 2, 3]
[calibration]
grid = [0.005, 0.01, 0.02]
seeds = [101, 102]
[[arms]]
name = "a"
[[arms]]
name = "b"
fields = { pool_size = 2 }
"""
A: Curve = {0.005: (55, 54), 0.01: (51, 52), 0.02: (53, 54)}
B: Curve = {0.005: (53, 52), 0.01: (50, 49), 0.02: (51, 50)}


def searched(a: Curve = A, b: Curve = B, chosen: tuple[float, float] = (0.01, 0.01)) -> Study:
    """The study with such curves kept, as of runs of its arms as they stand."""
    bare = parse(TEXT, "mine")
    lines = [
        f'{{ arm = "{name}", rate = {rate}, seed = {seed}, value = {value}, '
        f'key = "{key(bare.search_recipe(bare.arm(name), seed, rate))}" }}'
        for name, curve in (("a", a), ("b", b))
        for rate, values in curve.items()
        for seed, value in zip((101, 102), values, strict=False)
    ]
    return parse(TEXT, "mine", f"evidence = [{', '.join(lines)}]\n[rates]\na = {chosen[0]}\nb = {chosen[1]}\n")


def explore(error: Callable[[float], float], grid: tuple[float, ...]) -> dict[float, list[float]]:
    curve: dict[float, list[float]] = {}
    while rates := search.next_rates(curve, grid):
        curve.update({rate: [error(rate)] for rate in rates})
    return curve


@settings(deadline=None)
@given(st.floats(-12, -2), st.integers(-7, 4))
def test_the_best_rate_ends_inside(bottom: float, away: int) -> None:
    """For an error that has one lowest place, wherever that is and wherever the search begins."""

    def error(rate: float) -> float:
        return math.inf if math.log2(rate) > bottom + 1.2 else abs(math.log2(rate) - bottom)

    curve = explore(error, tuple(2.0 ** (round(bottom) + away + n) for n in range(3)))
    first = search.best(curve)[0]
    assert min(curve) < first < max(curve)
    assert abs(math.log2(first) - bottom) <= 0.51 or math.isinf(error(2 * first))


def test_of_equally_good_rates_the_middle_one() -> None:
    """Training errors reach zero at many rates: there the search ends, with a rate whose neighbours do as well."""
    curve = explore(lambda rate: max(0.0, 100 * rate - 1.0), (0.005, 0.01, 0.02))
    assert sorted(curve) == [0.0025, 0.005, 0.01, 0.02]
    assert search.best(curve) == [0.005, 0.0025, 0.01, 0.02]
    assert search.best({0.1: [math.inf], 0.2: [math.inf], 0.4: [math.inf]})[0] == 0.1, "where all fail, look lower"


def test_a_grid_with_wide_steps_is_filled_in() -> None:
    curve = explore(lambda rate: abs(math.log2(rate / 0.011)), (0.1, 0.001))
    first, rates = search.best(curve)[0], sorted(curve)
    place = rates.index(first)
    assert rates[place + 1] / first < 2.01 > first / rates[place - 1]
    assert explore(lambda rate: abs(math.log2(rate / 0.01)), (0.01,)).keys() == {0.005, 0.01, 0.02}


def test_many_rates_with_the_best_inside_are_an_answer() -> None:
    grid = tuple(2.0**-n for n in range(15))
    assert sorted(explore(lambda rate: abs(math.log2(rate) + 7), grid)) == sorted(grid)


def test_a_curve_that_never_turns_is_given_up() -> None:
    with pytest.raises(ConfigurationError, match="no best learning rate among 13"):
        explore(lambda rate: rate, (0.01, 0.02))


@pytest.mark.parametrize(
    ("a", "chosen", "said"),
    [
        ({}, 0.01, "no learning rate was searched"),
        ({rate: values[:1] for rate, values in A.items()}, 0.01, "one seed"),
        (A, 0.02, "not the best"),
        ({0.01: (51, 52), 0.02: (53, 54)}, 0.01, "edge"),
        ({0.005: (55, 54), 0.01: (53, 54), 0.02: (51, 52)}, 0.02, "edge"),
        ({0.005: (55, 54), 0.01: (51, 52), 0.04: (53, 54)}, 0.01, "more than a factor of 2"),
        (A, 0.01, ""),
        ({0.005: (0, 0), 0.01: (0, 0), 0.02: (0, 0), 0.04: (5, 5)}, 0.02, ""),  # as good as any
        ({0.005: (0, 0), 0.01: (0, 0), 0.02: (0, 0), 0.04: (5, 5)}, 0.005, "edge"),
        ({0.005: (0, 0), 0.01: (0, 1), 0.02: (0, 0), 0.04: (5, 5)}, 0.01, "not the best"),
    ],
)
def test_what_a_comparison_may_not_rest_on(a: Curve, chosen: float, said: str) -> None:
    study = searched(a, chosen=(chosen, 0.01))
    reason = search.lacking(study, study.arm("a"))
    assert said in reason
    assert bool(reason) == bool(said)


def test_evidence_of_another_design_does_not_count() -> None:
    study = searched()
    changed = parse(
        TEXT.replace("[calibration]", "[regime]\nepochs = 7\n[calibration]"), "mine", "[rates]\na = 0.01\nb = 0.01\n"
    )
    moved = Study(**{**changed.__dict__, "evidence": study.evidence})
    assert search.tuning(study, study.arm("a"))
    assert not search.tuning(moved, moved.arm("a"))


def test_the_sign_at_the_two_best_rates_of_both() -> None:
    below = searched()
    assert search.agree(below, below.arm("b"), -1)
    crossed = searched(b={0.005: (53, 55), 0.01: (50, 49), 0.02: (54, 55)})
    assert not search.agree(crossed, crossed.arm("b"), -1), "at b's second rate it errs more than a at its first"


def test_a_rate_at_which_training_failed_agrees_with_nothing() -> None:
    failed = searched(a={0.005: ("inf", "inf"), 0.01: (51, 52), 0.02: ("inf", "inf")})  # type: ignore[dict-item]
    assert search.lacking(failed, failed.arm("a")) == ""
    assert not search.agree(failed, failed.arm("b"), -1)


def test_a_search_for_errors_does_not_speak_of_gaps() -> None:
    found = searched()
    assert not search.agree(Study(**{**found.__dict__, "measure": "gap"}), found.arm("b"), -1)


def test_one_seed_twice_is_one_seed() -> None:
    found = searched(a={rate: values[:1] for rate, values in A.items()})
    twice = Study(**{**found.__dict__, "evidence": found.evidence * 2})
    assert "one seed" in search.lacking(twice, twice.arm("a"))


@pytest.mark.parametrize(
    ("measure", "losses", "found"),
    [
        ("error", (2.3, 1.0), 40.0),
        ("gap", (2.3, 1.0), 40.0),
        ("training", (2.3, 1.0), 25.0),
        ("start", (2.3, 1.0), 20),
        ("start", (2.3, 2.2), 20 * 2.2 / (0.9 * math.log(10))),  # never left: later the more loss there is
        ("epochs", (2.3, 1.0), 2.0),
    ],
)
def test_what_a_search_minimises(tmp_path: Path, measure: str, losses: tuple[float, float], found: float) -> None:
    recipe = load("small").replace(classes=10)
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    records: list[dict[str, object]] = [
        {"kind": "train", "step": 10 * n, "epoch": float(n), "loss": loss, "top1": 0.25 + 0.5 * (n - 1)}
        for n, loss in enumerate(losses, 1)
    ]
    records.append({"kind": "validation", "step": 20, "epoch": 2, "top1_error": 0.4})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    study = parse(TEXT.replace('measure = "error"', f'measure = "{measure}"'), "mine")
    assert calibration.value(study, tmp_path) == pytest.approx(found)
    (tmp_path / "diverged.json").write_text("{}")
    assert calibration.value(study, tmp_path) == math.inf
