"""The roofline: multiply-adds are the paper's, and what must move is counted once, on processors and on GPUs."""

from __future__ import annotations

import math

import pytest

from minialex.engine.step import Plan, record
from minialex.engine.summary import PAPER_TOTALS, summarise
from minialex.network import variants
from minialex.recipe.toml import load
from minialex.speed.plan import Pass, lay_out
from minialex.speed.roofline import Peaks, Work, works

PAPER = load("alexnet-2012")
NETWORK = variants.build(PAPER)
N = 4


def of(kind, placement=("cpu:0", "cpu:0")):
    return works(record(Plan(NETWORK, placement), kind, N, ("cpu:0", "cpu:1")))


def test_multiply_adds_are_the_papers():
    train, infer = of("train"), of("infer")
    assert sum(work.multiply_adds for work in infer.values()) == N * PAPER_TOTALS["multiply_adds"]
    total = sum(work.multiply_adds for work in train.values())
    assert total == N * summarise(PAPER).training_multiply_adds == N * 2_067_805_248
    assert train["conv1", "forward"].multiply_adds == train["conv1", "backward"].multiply_adds == N * 105_415_200
    assert train["conv2", "backward"].multiply_adds == 2 * N * 223_948_800
    assert train["fc6", "backward"].multiply_adds == 2 * N * 9216 * 4096


def test_bytes_are_each_array_once():
    train = of("train")
    maps = 4 * N * 96 * 55 * 55
    pooled = 4 * N * 96 * 27 * 27
    assert train["norm1", "forward"].bytes == 2 * maps
    assert train["norm1", "backward"].bytes == 3 * maps
    assert train["pool1", "forward"].bytes == train["pool1", "backward"].bytes == maps + pooled
    assert train["relu1", "forward"].bytes == train["dropout6", "backward"].bytes == 0
    image = 4 * N * 3 * 224 * 224
    weights = 4 * (96 * 363 + 96)
    assert train["conv1", "forward"].bytes == image + weights + maps, "both columns read one image"
    assert train["conv1", "backward"].bytes == image + maps, "no gradient of the image, none of the weights"
    assert train["input", "input"].bytes == N * 3 * 224 * 224 + image + 4 * 3 * 256 * 256
    assert train["fc7", "update"].bytes == 4 * 4 * (4096 * 4096 + 4096)
    updated = sum(work.bytes for (_, phase), work in train.items() if phase == "update")
    assert updated == 4 * 4 * PAPER_TOTALS["parameters"]


@pytest.mark.parametrize("columns", [1, 2])
def test_counts_are_those_of_shapes(columns):
    """Layers that multiply, counted from the recorded step for processors and for GPUs, and from shapes here."""
    network = variants.build(PAPER)
    work = works(record(Plan(network, ("cpu:0",) * columns), "train", N, ("cpu:0",)))
    (passes,) = lay_out(network, (0,) * columns).work
    for stage in network.stages(columns):
        macs = stage.layer.multiply_adds(stage.seen, stage.columns) * stage.columns
        if not macs:
            continue
        name, needed = stage.layer.name, stage.trained_before
        shapes = {key: p.shape for key, p in stage.layer.parameters(stage.seen, 0, stage.columns).items()}
        w, b = (stage.columns * math.prod(shapes[key]) for key in ("weight", "bias"))
        shared = stage.gathers or not needed
        x = math.prod(stage.seen) * (1 if shared else stage.columns)
        y = math.prod(stage.output) * stage.columns
        forward, weights = Pass("forward", 2 * macs, x + y, w + b), Pass("weights", 2 * macs, x + y, w + b)
        backward = (Pass("backward", 2 * macs, x + y, w),) if needed else ()
        assert passes[name] == (forward, *backward, weights)
        assert work[name, "forward"] == Work(N * macs, 4 * (N * (x + y) + w + b))
        again = N * x + w if needed else 0  # both gradients in one sweep
        assert work[name, "backward"] == Work(N * macs * (1 + needed), 4 * (N * (x + y) + again))
        assert work[name, "update"] == Work(0, 16 * (w + b))
    parameters = sum(math.prod(p.shape) for p in network.parameters(columns).values())
    assert passes["update"] == (Pass("update", fixed=20 * parameters),)


@pytest.mark.parametrize("columns", [1, 2])
def test_normalisation_with_pooling_is_one_sweep_on_gpus(columns):
    """What is between them is neither written nor read; a processor's parts are counted apart."""
    network = variants.build(PAPER)
    work = works(record(Plan(network, ("cpu:0",) * columns), "train", N, ("cpu:0",)))
    (passes,) = lay_out(network, (0,) * columns).work
    stages = {stage.layer.name: stage for stage in network.stages(columns)}
    for name in ("norm1 + pool1", "norm2 + pool2"):
        parts = name.split(" + ")
        between = 4 * N * stages[parts[0]].columns * math.prod(stages[parts[0]].output)
        for one, phase in zip(passes[name], ("forward", "backward"), strict=True):
            assert one.bytes(N, "float32") == sum(work[part, phase].bytes for part in parts) - 2 * between


def test_normalisation_over_all_columns():
    """Each column normalises what it gathered and pools its own piece; across an exchange nothing is one sweep."""
    (passes,) = lay_out(variants.build(load("caffe").replace(classes=10)), (0, 0)).work
    before, after = 96 * 55 * 55, 96 * 27 * 27
    assert passes["norm1 + pool1"] == (
        Pass("forward", values=before + after),
        Pass("backward", values=3 * before + after),
    )
    (apart,) = lay_out(variants.build(load("caffenet").replace(classes=10)), (0, 0)).work
    assert {"pool1", "norm1"} <= set(apart)


def test_what_crosses_between_devices_moves():
    assert of("infer")["conv3", "exchange"].bytes == 0
    crossed = of("infer", ("cpu:0", "cpu:1"))["conv3", "exchange"].bytes
    assert crossed == 2 * 2 * 4 * N * 128 * 13 * 13, "each column's half, read here and written there"


@pytest.mark.parametrize(("work", "seconds"), [(Work(100, 10), 10.0), (Work(10, 100), 5.0), (Work(0, 0), 0.0)])
def test_the_floor_is_the_longer_of_two_times(work, seconds):
    assert math.isclose(Peaks(multiply_adds=10.0, bytes=20.0).floor(work), seconds)
