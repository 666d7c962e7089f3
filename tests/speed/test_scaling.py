"""The arithmetic of many devices, held to published runs: their figures, and where they are from, stand here."""

from __future__ import annotations

import math
import runpy
from pathlib import Path

import pytest

from minialex.errors import ConfigurationError
from minialex.network import variants
from minialex.recipe.toml import load
from minialex.speed.rates import KNOWN, network
from minialex.speed.scaling import Cluster, Subject, Work, counts, step, turns

ROOT = Path(__file__).resolve().parents[2]
PAPER = variants.build(load("alexnet-2012").replace(classes=1000))
SUBJECT = Subject(PAPER, 2, KNOWN["h200"], "bfloat16")
NVLINK = Cluster(1, 8, 450e9)
MANY = Cluster(128, 8, 450e9, network("400g"))

PARAMETERS = 60_965_224
FULL = 58_631_144  # of them in the fully connected layers
CLOSE = 0.25

TENSORFLOW = {
    "Google Compute Engine, 8 K80": {1: 656, 2: 1209, 4: 2328, 8: 4640},
    "Amazon EC2, 8 K80": {1: 684, 2: 1244, 4: 2479, 8: 4853},
    "DGX-1, 8 P100": {1: 2987, 2: 5658, 4: 10509, 8: 17822},
}
"""Images a second of AlexNet on synthetic images, 512 a GPU, May 2017: tensorflow/docs_src/performance/benchmarks.md in
github.com/tensorflow/tensorflow (commit 5984ffef)."""

HOURS_2014 = {1: 98.05, 2: 50.24, 4: 26.20, 8: 15.68}
"""Of 90 epochs on K20s, 128 images each, full layers divided: table 1 of Krizhevsky, "One weird trick for parallelizing
convolutional neural networks", arXiv:1404.5997."""

SPEEDUP_2019, IMAGES_2019 = 410.2, 95 * 1_281_167 / 90
"""512 V100s of 8 a node, 56 Gb/s: the speed-up, and 95 epochs in 1.5 minutes, of the abstract of Sun et al.,
"Optimizing network performance for distributed DNN training on GPU clusters", arXiv:1902.06855."""


def flat(rate: float, devices: int = 8) -> Cluster:
    """Give devices of one node whose messages start at once."""
    return Cluster(1, devices, rate, inner_delay=0.0)


def sums(machine: str) -> dict[int, float]:
    """Predict images a second of TensorFlow's runs, from those of one device and of two; nothing was hidden."""
    rates = TENSORFLOW[machine]
    seconds = {devices: 512 * devices / rate for devices, rate in rates.items()}
    size = PARAMETERS * 4
    rate = size / (seconds[2] - seconds[1])  # of two devices each sends as much as there is
    work = Work(seconds[1], 0.0, behind=0.0, early=size, late=0.0)
    return {devices: step("", work, flat(rate), devices, 512 * devices).images_per_second for devices in (4, 8)}


FULL_TIME = 0.08
"""Of a step's arithmetic that of the full layers: 58.6 of 715 million multiply-adds an image."""


def divided(scheme: str = "a") -> dict[int, float]:
    """Predict speed-ups of 2014, from the time of two devices; which scheme the figures are of is not said there."""
    full, inputs = SUBJECT.full()
    alone = 90 * 1_281_167 / (HOURS_2014[1] * 3600)
    seconds = {devices: devices * 128 / (alone * HOURS_2014[1] / hours) for devices, hours in HOURS_2014.items()}
    first = SUBJECT.first()

    def waited(devices: int, rate: float) -> float:
        cluster = flat(rate)
        total, covered = turns(
            cluster, devices, 128 * 4, first, inputs - first, FULL_TIME * seconds[1], scheme
        )  # fmt: skip
        return total - covered + sum(cluster.all_reduce((PARAMETERS - full) * 4, devices))

    low, high = 1e8, 1e11
    for _ in range(60):
        rate = math.sqrt(low * high)
        low, high = (rate, high) if waited(2, rate) > seconds[2] - seconds[1] else (low, rate)
    assert 0.9e9 < rate < 3e9  # PCI express of 2014, with two directions
    return {devices: devices * seconds[1] / (seconds[1] + waited(devices, rate)) for devices in (4, 8)}


def five_hundred() -> float:
    """Predict images a second of 512 V100s from that of one.

    The paper's batch of 65,536 is 128 each; gradients are of two bytes; the links are taken as NVLink within a node and
    90 % of 56 Gb/s between. The paper sends less than all gradients, too.
    """
    computing = 128 * SPEEDUP_2019 / IMAGES_2019
    cluster = Cluster(64, 8, 40e9, 56e9 / 8 * 0.9, 5e-6, 5e-6)
    work = Work(computing, 0.0, 0.59 * computing, FULL * 2, (PARAMETERS - FULL) * 2)
    return step("", work, cluster, 512, 512 * 128).images_per_second


@pytest.mark.parametrize("machine", TENSORFLOW)
def test_published_sums_of_gradients(machine: str) -> None:
    for devices, found in sums(machine).items():
        assert found == pytest.approx(TENSORFLOW[machine][devices], rel=CLOSE)


@pytest.mark.parametrize("scheme", "abc")
def test_published_run_with_divided_layers(scheme: str) -> None:
    assert SUBJECT.full() == (FULL, 9216 + 4096 + 4096)
    for devices, found in divided(scheme).items():
        assert found == pytest.approx(HOURS_2014[1] / HOURS_2014[devices], rel=CLOSE)


def test_what_divided_layers_send_and_hold() -> None:
    one, *_, (a, b, c) = SUBJECT.data_parallel(NVLINK, 8, 1024), SUBJECT.ways(NVLINK, 8, 1024)[2:]
    convolutions = PARAMETERS - FULL
    assert one.sent == 2 * 7 / 8 * 4 * PARAMETERS
    assert one.memory == 3 * 4 * PARAMETERS
    sent = 2 * 7 / 8 * 4 * convolutions + 2 * 7 * 128 * (9216 + 2 * 4096) * 4
    assert [step.sent for step in (a, b, c)] == pytest.approx([sent] * 3)
    own = 3 * 4 * (convolutions + FULL / 8)
    assert a.memory == pytest.approx(own + 2 * 1024 * 9216 * 4)
    assert b.memory == c.memory == pytest.approx(own + 4 * 128 * 9216 * 4)
    assert SUBJECT.crossover == pytest.approx(3368, abs=1)
    for images in (3360, 3376):  # where as many bytes cross as for the full layers' gradients
        assert (SUBJECT.divided(NVLINK, 8, images).sent < one.sent) == (images < SUBJECT.crossover)


def test_turns_hide_what_computing_takes() -> None:
    wide, slow = Cluster(1, 4, 1e9, inner_delay=0.0), Cluster(1, 4, 1e3, inner_delay=0.0)
    share, first = 4.0, 1000
    total, covered = turns(slow, 4, share, first, 0, 0.0, "a")
    assert total == pytest.approx(2 * 3 * share * first / 1e3)
    assert covered == 0
    for scheme, one in (("b", 3 * share * first / 1e9), ("c", 3 * share * first / 4 / 1e9)):
        total, covered = turns(
            wide, 4, share, first, 0, 1.0, scheme
        )  # computing is long: first and last are waited for
        assert total == pytest.approx(4 * 2 * one)
        assert total - covered == pytest.approx(2 * one)
        total, covered = turns(slow, 4, share, first, 0, 0.0, scheme)  # nothing is computed
        assert 0 <= covered < total
    assert turns(slow, 4, share, first, 0, 0.0, "c")[0] == pytest.approx(turns(slow, 4, share, first, 0, 0.0, "a")[0])


def test_published_run_of_512() -> None:
    assert five_hundred() == pytest.approx(IMAGES_2019, rel=CLOSE)


def test_the_chapter_shows_what_is_computed_here() -> None:
    page = (ROOT / "docs/tutorial/21-many-machines.md").read_text(encoding="utf-8")
    rows = [
        (
            f"{machine}, TensorFlow 2017",
            devices,
            f"{TENSORFLOW[machine][devices]:,}",
            f"{found:,.0f}",
            found / TENSORFLOW[machine][devices],
        )
        for machine in TENSORFLOW
        for devices, found in sums(machine).items()
    ]
    for devices, scheme in ((devices, scheme) for devices in (4, 8) for scheme in "abc"):
        what, measured = f"K20s, Krizhevsky 2014, as scheme ({scheme})", HOURS_2014[1] / HOURS_2014[devices]
        found = divided(scheme)[devices]
        rows.append((what, devices, f"{measured:.2f} ×", f"{found:.2f} ×", found / measured))
    found = five_hundred()
    rows.append(("V100s, Sun et al. 2019", 512, f"{IMAGES_2019:,.0f}", f"{found:,.0f}", found / IMAGES_2019))
    for what, devices, measured, predicted, ratio in rows:
        line = f"| {what} | {devices} | {measured} | {predicted} | {100 * (ratio - 1):+.0f}% |".replace(" -", " −")
        assert line in page, line
    plans = runpy.run_path(str(ROOT / "benchmarks/plans.py"))
    assert plans["with_tables"](page) == page


def test_the_backward_pass_of_the_convolutions_is_most_of_the_time() -> None:
    work = Subject(PAPER, 2, KNOWN["h200"], "float32").work(1024)
    assert work.behind / work.computing == pytest.approx(0.59, abs=0.03)
    assert (work.early, work.late) == (FULL * 4, (PARAMETERS - FULL) * 4)


def test_sums_in_two_levels() -> None:
    inner, outer = Cluster(4, 8, 100e9, 10e9, 0, 0).all_reduce(1e9, 32)
    assert inner == pytest.approx(2 * 7 / 8 * 1e9 / 100e9)
    assert outer == pytest.approx(2 * 3 / 4 * 1e9 / 10e9)
    assert Cluster(4, 8, 100e9, 10e9).all_reduce(1e9, 1) == (0, 0)
    assert Cluster(4, 8, 100e9, 10e9, 0, 0).all_reduce(1e9, 4) == (pytest.approx(1.5e9 / 100e9), 0)


def test_one_device_sends_nothing() -> None:
    one = SUBJECT.data_parallel(NVLINK, 1, 128)
    assert one.seconds == one.computing + one.update
    assert len(SUBJECT.ways(NVLINK, 1, 128)) == 1


def test_who_wins_where() -> None:
    def best(cluster: Cluster, images: int) -> str:
        return min(SUBJECT.ways(cluster, cluster.devices, images), key=lambda one: one.seconds).scheme

    alike, columns, *_ = SUBJECT.ways(NVLINK, 8, 8 * 32)
    assert columns.seconds < alike.seconds
    assert best(NVLINK, 8 * 1024) == "data parallel"
    assert best(Cluster(1, 8, 22e9), 8 * 128) == "full layers divided (c)"
    slow = Cluster(8, 1, math.inf, network("100g"))
    assert best(slow, 8 * 128) == "full layers divided (c)"
    assert best(slow, 8 * 1024) == "data parallel"


def test_numbers_of_devices() -> None:
    assert counts(NVLINK, 128) == [1, 2, 4, 8]
    assert counts(Cluster(3, 6, 1.0, 1.0), 128) == [1, 2, 4, 6, 12, 18]
    assert counts(MANY, 8192)[-3:] == [256, 512, 1024]
    with pytest.raises(ConfigurationError, match="2,048 devices are more than 1,024"):
        counts(Cluster(256, 8, 1.0, 1.0), 8192)
    with pytest.raises(ConfigurationError, match="1024 devices have no share each of 128 images: --batch-size"):
        counts(MANY, 128)


@pytest.mark.parametrize(("text", "gigabytes"), [("100g", 11.25), ("400G", 45), ("8x400g", 360)])
def test_networks(text: str, gigabytes: float) -> None:
    assert network(text) == pytest.approx(gigabytes * 1e9)


@pytest.mark.parametrize("text", ["", "400", "0g", "x400g", "0x4g", "400gb", "nvlink4"])
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--network takes gigabits"):
        network(text)
