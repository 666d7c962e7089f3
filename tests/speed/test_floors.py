"""Floors: the arithmetic of shapes is the paper's, and what must move is counted once."""

from __future__ import annotations

import math

import pytest

from minialex.engine.step import Plan, record
from minialex.engine.summary import PAPER_TOTALS, summarise
from minialex.network import variants
from minialex.recipe.toml import load
from minialex.speed.floors import Peaks, Work, works

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


def test_what_crosses_between_devices_moves():
    assert of("infer")["conv3", "exchange"].bytes == 0
    crossed = of("infer", ("cpu:0", "cpu:1"))["conv3", "exchange"].bytes
    assert crossed == 2 * 2 * 4 * N * 128 * 13 * 13, "each column's half, read here and written there"


@pytest.mark.parametrize(("work", "seconds"), [(Work(100, 10), 10.0), (Work(10, 100), 5.0), (Work(0, 0), 0.0)])
def test_the_floor_is_the_longer_of_two_times(work, seconds):
    assert math.isclose(Peaks(multiply_adds=10.0, bytes=20.0).floor(work), seconds)
