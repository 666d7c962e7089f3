"""Two accounts of what a step costs at least: `speed.plan`'s from shapes, `speed.floors`' from recorded steps.

They count the same work. What differs is said here and nowhere else: a plan is for devices that compute the two
gradients of a product one after another and keep that of the weights in memory for the update, so it reads the gradient
of the output twice, and writes and reads that of the weights; `floors` takes both gradients in one sweep. And where
several columns on one device read all columns, a plan lets them add up the gradient of what they read in one place;
`floors` follows the recorded step, in which each column writes its own.
"""

from __future__ import annotations

import math

import pytest

from minialex.engine.step import Plan, record
from minialex.network import models
from minialex.network.network import Network
from minialex.speed import floors, plan

BATCH = 16


@pytest.fixture(params=[1, 2])
def columns(request: pytest.FixtureRequest) -> int:
    count: int = request.param
    return count


def both(columns: int) -> tuple[plan.Layout, dict[floors.Key, floors.Work], Network]:
    network = models.ALEXNET
    layout = plan.lay_out(network, (0,) * columns)
    recorded = record(Plan(network, ("cpu:0",) * columns), "train", BATCH, ("cpu:0",))
    return layout, floors.works(recorded), network


def test_multiply_adds_are_the_same_by_layer(columns: int) -> None:
    layout, works, _ = both(columns)
    for name, passes in layout.work[0].items():
        if name == "update" or " + " in name:
            continue
        ours = sum(p.flops for p in passes if p.name == "forward") * BATCH // 2
        assert ours == works[name, "forward"].multiply_adds, name
        gradients = sum(p.flops for p in passes if p.name != "forward") * BATCH // 2
        assert gradients == works.get((name, "backward"), floors.Work(0, 0)).multiply_adds, name
    flops = sum(p.flops for passes in layout.work[0].values() for p in passes) * BATCH
    assert flops == 2 * sum(work.multiply_adds for work in works.values()) > 0


def test_bytes_are_the_same_but_for_what_is_said(columns: int) -> None:
    layout, works, network = both(columns)
    stages = {stage.layer.name: stage for stage in network.stages(columns)}
    learned = 0
    for name, passes in layout.work[0].items():
        if name == "update":
            continue
        forward = sum(p.bytes(BATCH, "float32") for p in passes if p.name == "forward")
        back = sum(p.bytes(BATCH, "float32") for p in passes if p.name != "forward")
        if name in stages and stages[name].layer.multiply_adds(stages[name].seen, columns):
            stage = stages[name]
            weights = 4 * stage.columns * plan._weights(stage)
            shapes = {key: p.shape for key, p in stage.layer.parameters(stage.seen, 0, stage.columns).items()}
            biases = 4 * stage.columns * sum(math.prod(shape) for key, shape in shapes.items() if "bias" in key)
            learned += weights
            assert forward == works[name, "forward"].bytes, name
            dy = 4 * BATCH * stage.columns * math.prod(stage.output) if stage.trained_before else 0
            unused = biases if stage.trained_before else 0  # a plan's backward pass reads all weights, biases too
            own = 4 * BATCH * math.prod(stage.seen) * (stage.columns - 1) if stage.gathers else 0
            assert back == works[name, "backward"].bytes + dy + weights + unused - own, name
    update = sum(work.bytes for (_, phase), work in works.items() if phase == "update")
    (planned,) = layout.work[0]["update"]
    assert planned.bytes(BATCH, "float32") == update + learned
    assert learned == 4 * layout.parameters


def test_normalisation_with_pooling_is_one_sweep(columns: int) -> None:
    """A plan counts a chain once each way; `floors` counts its layers apart, and what is between them both ways."""
    layout, works, network = both(columns)
    stages = {stage.layer.name: stage for stage in network.stages(columns)}
    for name, passes in layout.work[0].items():
        parts = name.split(" + ")
        if "pool" not in name or len(parts) == 1:
            continue
        between = 4 * BATCH * stages[parts[0]].columns * math.prod(stages[parts[0]].output)
        forward, back = (p.bytes(BATCH, "float32") for p in passes)
        assert forward == sum(works[part, "forward"].bytes for part in parts) - 2 * between
        assert back == sum(works[part, "backward"].bytes for part in parts) - 2 * between
