"""The arithmetic of plans, held to numbers that were derived by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from minialex.backend.recorder import Recorder, as_backend
from minialex.engine.columns import Executor
from minialex.engine.step import Plan, record
from minialex.engine.summary import PAPER_TOTALS, summarise
from minialex.errors import ConfigurationError
from minialex.network import models, variants
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex.speed.plan import IMAGENET, Pass, averaged, floor, lay_out
from minialex.speed.rates import KNOWN, LINKS, PRECISIONS, Rates, read

UPDATE_BYTES = 20  # a parameter: w, v and dw are read and w and v written, in float32
PAPER = models.ALEXNET
H200 = KNOWN["h200"]
ONE = lay_out(PAPER, (0, 0))
TWO = lay_out(PAPER, (0, 1))


def test_values_that_the_columns_exchange() -> None:
    found = {(e.source, e.reader): e.values for e in TWO.exchanges}
    assert found == {
        ("pool2", "conv3"): 21_632,
        ("pool5", "fc6"): 4_608,
        ("fc6", "fc7"): 2_048,
        ("fc7", "fc8"): 2_048,
    }
    assert {e.reader: e.both // e.values for e in TWO.exchanges} == {"conv3": 2, "fc6": 2, "fc7": 2, "fc8": 1}
    assert TWO.parameters == ONE.parameters == PAPER_TOTALS["parameters"] == 60_965_224
    assert ONE.exchanges == ()


@pytest.mark.parametrize("changes", [{}, {"norm_scope": "all"}, {"connect": "everywhere"}, {"connect": "never"}])
def test_exchanges_are_what_the_executor_counts(changes: dict[str, str]) -> None:
    recipe = Recipe().replace(**changes)
    network = variants.build(recipe)
    plan = Plan(network, ("cpu:0", "cpu:1"))
    executor = Executor(network, as_backend(Recorder(("cpu:0", "cpu:1"))), plan.placement)
    program = record(plan, "train", 3, ("cpu:0", "cpu:1"))
    moved: dict[tuple[str, str], int] = {}
    for call in program.calls:
        if call.operation == "copy_to" and call.phase == "exchange":
            way = call.args[0].device, call.args[1]
            moved[way] = moved.get(way, 0) + call.args[0].nbytes // 3 // 4
    layout = lay_out(network, (0, 1))
    assert sum(moved.values()) == 2 * sum(e.both for e in layout.exchanges)
    assert [e.reader for e in layout.exchanges] == [s.layer.name for s in executor.stages if s.gathers]


@pytest.mark.parametrize(
    ("precision", "batch", "milliseconds"),
    [
        ("float32", 128, "8.4"), ("float32", 256, "16.5"), ("float32", 1024, "65"),
        ("tf32", 128, "1.9"), ("tf32", 256, "3.4"), ("tf32", 1024, "12.8"),
        ("bfloat16", 128, "1.09"), ("bfloat16", 256, "1.84"), ("bfloat16", 1024, "6.5"),
    ],
)  # fmt: skip
def test_floors_on_one_h200(precision: str, batch: int, milliseconds: str) -> None:
    found = floor(ONE, [H200], precision, batch).seconds * 1e3
    digits = len(milliseconds.partition(".")[2])
    assert f"{found:.{digits}f}" == milliseconds


@pytest.mark.parametrize(
    ("precision", "thousands", "minutes"), [("float32", 15.7, 122), ("tf32", 80, 24), ("bfloat16", 157, 12)]
)
def test_training_time_on_one_h200(precision: str, thousands: float, minutes: float) -> None:
    found = floor(ONE, [H200], precision, 1024)
    assert found.images_per_second() / 1e3 == pytest.approx(thousands, abs=0.5)
    assert found.training_seconds() / 60 == pytest.approx(minutes, abs=0.5)
    assert found.training_seconds(IMAGENET // 2, 45) == pytest.approx(found.training_seconds() / 4, rel=1e-5)


def test_layers_on_one_h200() -> None:
    found = {line.layer: line.seconds * 1e6 for line in floor(ONE, [H200], "bfloat16", 1024).lines}
    expected = {"conv1": 548, "conv2": 1746, "conv3": 1166, "conv4": 874, "conv5": 583, "update": 284}
    assert {name: round(found[name]) for name in expected} == expected
    assert round(found["fc6"] + found["fc7"] + found["fc8"]) == 457
    assert round(found["norm1 + pool1"] + found["norm2 + pool2"] + found["pool5"]) == 860
    assert list(found)[:4] == ["conv1", "norm1 + pool1", "conv2", "norm2 + pool2"]


def test_bytes_and_times_of_the_exchange() -> None:
    found = floor(TWO, [H200, H200], "bfloat16", 128)
    assert found.exchanged / 1e6 == pytest.approx(15.5, abs=0.05)
    assert found.exchanging * 1e6 == pytest.approx(35, abs=0.5)
    slow = floor(TWO, [H200, H200], "bfloat16", 128, LINKS["pcie5"])
    assert slow.exchanging * 1e6 == pytest.approx(282, abs=0.5)
    assert found.seconds == pytest.approx(found.computing + found.exchanging)
    assert found.hidden == found.computing


def test_averaging_gradients_sends_more_below_a_batch_of_1005() -> None:
    assert round(TWO.crossover) == 1_005
    assert round(TWO.crossover_both) == 1_040
    replicas = averaged(PAPER, 2, [H200, H200], "bfloat16", 128)
    assert replicas.exchanged / 1e6 == pytest.approx(122, abs=0.1)
    for precision in PRECISIONS:  # the crossover is the same in every precision
        for batch, columns_send_less in ((1_004, True), (1_006, False)):
            mine = floor(TWO, [H200, H200], precision, batch).exchanged
            assert (mine < averaged(PAPER, 2, [H200, H200], precision, batch).exchanged) is columns_send_less
    assert math.isinf(ONE.crossover)
    assert math.isinf(ONE.crossover_both)


def test_multiply_adds_are_the_summary_s() -> None:
    for name in ("alexnet-2012", "small", "caffe", "code145", "one-weird-trick"):
        recipe = load(name).replace(classes=10)
        layout = lay_out(variants.build(recipe), (0,) * recipe.columns)
        flops = sum(p.flops for passes in layout.work[0].values() for p in passes)
        found = summarise(recipe)
        assert flops == 2 * found.training_multiply_adds
        assert layout.parameters == found.parameters
        (update,) = layout.work[0]["update"]
        assert update.fixed == UPDATE_BYTES * found.parameters


def test_two_devices_share_the_work() -> None:
    alone = sum(p.flops for passes in ONE.work[0].values() for p in passes)
    shared = [sum(p.flops for passes in work.values() for p in passes) for work in TWO.work]
    assert sum(shared) == alone
    assert "fc8" in TWO.work[0]
    assert "fc8" not in TWO.work[1]
    assert shared[0] - shared[1] == sum(p.flops for p in TWO.work[0]["fc8"])
    mine, other = (floor(lay_out(PAPER, (0, n)), [H200] * (n + 1), "tf32", 256).computing for n in (0, 1))
    assert mine / 2 < other < 0.6 * mine


def test_a_pass_takes_the_longer_of_its_two_times() -> None:
    rates = Rates("x", {"float32": 1e3, "bfloat16": 2e3}, 1e2)
    one = Pass("forward", flops=10, values=3, weights=5, fixed=7)
    assert one.bytes(2, "float32") == (3 * 2 + 5) * 4 + 7
    assert one.bytes(2, "bfloat16") == (3 * 2 + 5) * 2 + 7
    assert one.seconds(2, "float32", rates) == pytest.approx(51 / 1e2)
    assert replace(one, flops=100_000).seconds(2, "bfloat16", rates) == pytest.approx(100)


def test_normalisation_and_pooling_are_one_pass_each_way() -> None:
    forward, backward = ONE.work[0]["norm1 + pool1"]
    before, after = 55 * 55 * 96, 27 * 27 * 96
    assert (forward.values, backward.values) == (before + after, 2 * before + after)
    caffe = lay_out(variants.build(Recipe().replace(norm_place="after-pool")), (0, 0)).work[0]
    assert "pool1 + norm1" in caffe
    code = lay_out(variants.build(load("code145")), (0, 0)).work[0]
    assert {"norm1 + pool1", "norm2 + spatial2 + pool2"} <= set(code)


def test_unlike_devices_and_missing_rates() -> None:
    slow = replace(H200, name="slow", copy=H200.copy / 100)
    both = floor(TWO, [slow, H200], "tf32", 128)
    assert both.computing > floor(TWO, [H200, H200], "tf32", 128).computing
    update = next(line for line in both.lines if line.layer == "update")
    assert update.seconds == pytest.approx(UPDATE_BYTES * sum(p.fixed for p in TWO.work[0]["update"]) / 20 / slow.copy)
    with pytest.raises(ConfigurationError, match=r"GTX 580 has no rate for precision 'tf32'; it has float32"):
        floor(ONE, [KNOWN["gtx580"]], "tf32", 128)
    unlinked = replace(H200, name="lonely", link=None)
    with pytest.raises(ConfigurationError, match="link to lonely is not known; give it with --link"):
        floor(TWO, [H200, unlinked], "tf32", 128)
    assert floor(TWO, [H200, unlinked], "tf32", 128, 1e9).exchanging > 0
    assert averaged(PAPER, 2, [H200, unlinked], "tf32", 128, 1e9).exchanging > 0


def test_the_floor_of_2012_is_below_what_was_measured_then() -> None:
    """222 to 267 images a second were reported on two GTX 580, some 30 % of their peak."""
    found = floor(TWO, [KNOWN["gtx580"]] * 2, "float32", 128).images_per_second()
    assert 0.29 < 222 / found < 267 / found < 0.39


def test_the_known_h100_is_the_one_that_was_measured() -> None:
    """Within a tenth: two cards of a kind are not the same, nor two minutes of one."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "device" / "rates.json"
    measured = next(iter(read(path).values()))
    if "H100" not in measured.name:
        pytest.skip(f"the recorded rates are of {measured.name}")
    known = KNOWN["h100"]
    assert known.matrix == pytest.approx(measured.matrix, rel=0.1)
    assert known.copy == pytest.approx(measured.copy, rel=0.1)
