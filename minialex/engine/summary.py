"""A network in numbers: shapes, connections, parameters, neurons, multiply-adds, memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

from minialex.backend.program import Program, Value, values
from minialex.engine.columns import Placement
from minialex.engine.step import Plan, record
from minialex.network import own, variants
from minialex.network.layers import Conv2d, Linear
from minialex.network.network import Network
from minialex.recipe.fields import Recipe, is_own

PAPER_TOTALS = {"parameters": 60_965_224, "neurons": 659_272, "multiply_adds": 724_406_816}
"""The paper's network, computed from its table; the paper says "60 million parameters" and "650,000 neurons"."""


@dataclass(frozen=True)
class Row:
    """One layer, all columns together (`output` is one column's piece)."""

    layer: str
    kind: str
    columns: int
    output: tuple[int, ...]
    reads: str
    kernel: str
    parameters: int
    neurons: int
    multiply_adds: int
    received: int


@dataclass(frozen=True)
class Summary:
    """All layers, the totals, and the bytes that a training step of a batch needs."""

    rows: tuple[Row, ...]
    parameters: int
    neurons: int
    multiply_adds: int
    training_multiply_adds: int
    batch_size: int
    parameter_bytes: int
    activation_bytes: int


def summarise(recipe: Recipe, batch_size: int | None = None) -> Summary:
    """The summary of a recipe's network.

    If the recipe leaves the number of classes to the data, AlexNet has 1,000, and a user-defined network as many as it
    chooses.
    """
    if recipe.classes == 0 and not (is_own(recipe.model) and isinstance(own.load(recipe.model), Network)):
        recipe = recipe.replace(classes=1000 if recipe.model == "alexnet" else 10)
    network = variants.build(recipe)
    batch_size = recipe.batch_size if batch_size is None else batch_size
    rows = tuple(_rows(network, recipe.columns))
    arithmetic = [row.multiply_adds for row in rows]
    first = next((n for n in arithmetic if n), 0)
    parameters = sum(row.parameters for row in rows)
    itemsize = 8 if recipe.dtype == "float64" else 4
    return Summary(
        rows,
        parameters,
        sum(row.neurons for row in rows),
        sum(arithmetic),
        3 * sum(arithmetic) - first,  # forward, and both gradients of every layer except the first one's input
        batch_size,
        3 * parameters * itemsize,
        activation_bytes(network, recipe, batch_size),
    )


def _rows(network: Network, columns: int) -> list[Row]:
    rows = []
    holder = ""
    for stage in network.stages(columns):
        layer = stage.layer
        parts = [stage.layer.parameters(stage.seen, column, stage.columns) for column in range(stage.columns)]
        reads = "both columns" if stage.sources == 2 else f"all {stage.sources} columns"
        neurons = isinstance(layer, Conv2d | Linear)
        kernel = ""
        if isinstance(layer, Conv2d):
            kernel = f"{layer.kernels} × {layer.size}×{layer.size}×{stage.seen[0]}, stride {layer.stride}"
        elif isinstance(layer, Linear):
            kernel = f"{layer.features} × {stage.seen[0]}"
        else:
            size, stride = getattr(layer, "size", None), getattr(layer, "stride", None)
            kernel = f"{size} / {stride}" if stride else f"{size}" if size else ""
        rows.append(
            Row(
                layer.name,
                type(layer).__name__,
                stage.columns,
                stage.output,
                (reads if stage.gathers else "own column") if holder and stage.sources > 1 else holder or "image",
                kernel,
                sum(math.prod(p.shape) for part in parts for p in part.values() if p.learned),
                math.prod(stage.output) * stage.columns if neurons else 0,
                layer.multiply_adds(stage.seen, stage.columns) * stage.columns,
                stage.values_received * stage.columns,
            )
        )
        holder = "own column" if stage.columns > 1 else "layer before"
    return rows


def activation_bytes(network: Network, recipe: Recipe, batch_size: int) -> int:
    """The peak bytes of live arrays in a training step, besides parameters and momentum.

    Computed from the recorded step: an array lives from the call that makes it to the last one that reads it.
    """
    placement: Placement = ("cpu:0",) * recipe.columns
    return peak_bytes(record(Plan(network, placement, recipe), "train", batch_size, ("cpu:0",)))


def peak_bytes(program: Program) -> int:
    """The peak bytes of a program's own and fed arrays."""
    last: dict[Value, int] = {}
    for index, call in enumerate(program.calls):
        for value in [*values((call.args, call.kwargs)), *(v for v in call.results if v is not None)]:
            last[value] = index
    kept = {*program.bound.values(), *program.outputs.values()}
    alive = sum(value.nbytes for value in program.fed.values())
    worst = alive
    for index, call in enumerate(program.calls):
        aliases = call.operation == "reshape"  # the same numbers in another shape
        alive += sum(v.nbytes for v in call.results if v is not None and not aliases)
        worst = max(worst, alive)
        touched = {*values((call.args, call.kwargs)), *(v for v in call.results if v is not None)}
        alive -= sum(v.nbytes for v in touched if last[v] == index and v not in kept and not aliases)
    return worst
