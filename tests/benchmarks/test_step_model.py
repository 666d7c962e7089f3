"""The model of a step on a GPU: it counts what is asked for, and its time is the longest of what that takes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.network import variants
from minialex.recipe.toml import load
from minialex.speed import plan
from minialex.speed.rates import KNOWN
from minialex_cuda.runtime.array import Flat, Memory
from minialex_cuda.runtime.kernel import KERNELS, Grid

ROOT = Path(__file__).resolve().parents[2]
OTHERS = ("step_model", "gpu", "gpu_busy", "gpu_goals", "instructions", "ptx", "convolutions")


@pytest.fixture(scope="module")
def step_model() -> Any:
    path, names = [*sys.path], [name for name in OTHERS if name not in sys.modules]
    spec = importlib.util.spec_from_file_location("step_model", ROOT / "benchmarks" / "step_model.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["step_model"] = found
    spec.loader.exec_module(found)
    yield found
    sys.path[:] = path
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def model(step_model: Any) -> Any:
    counted = json.loads(step_model.TABLE.read_text(encoding="utf-8"))
    return step_model.Model(KNOWN["h200"], step_model.Chip(100, 1e13 / 12800, 1 << 17), counted)


def test_the_longest_counts(step_model: Any, model: Any) -> None:
    long = {"nbytes": 10**9, "products": 10**11, "rate": 1e14, "instructions": 1e10}
    byte, product, instruction = 1e9 / (step_model.MEMORY * 4.3e12), 1e-3, 1e10 / (step_model.ISSUING * 1e13)
    assert instruction > product > byte
    for name, seconds in (("instructions", instruction), ("products", product), ("nbytes", byte)):
        assert model._part(**long).seconds == pytest.approx(seconds + step_model.GAP)
        long[name] = 0
    assert model._part(**long).seconds == step_model.LEAST + step_model.GAP


def test_few_threads_are_slow(step_model: Any, model: Any) -> None:
    """A block of one warp takes as long as many beside it, until they no longer fit; registers say how many do."""
    fillings = model.chip.fillings
    assert fillings(1, 32, 0, 32) == fillings(3200, 32, 0, 32) == 1
    assert fillings(6400, 32, 0, 32) == 2
    assert fillings(400, 512, 0, 32) == 1
    assert fillings(400, 512, 0, 64) == 2
    assert fillings(400, 32, 63 << 10, 32) == 2
    memory = Memory(None, 0, "cuda:0", Counter())
    sums, total = (Flat(memory, 0, np.empty(n, np.float32)) for n in (3025 * 48, 48))
    row = {"per_value": 10.0, "lines": 0.1, "registers": 24, "cycles": 3025 * 700, "bytes": 3025 * 4}
    counting = step_model.Model(model.rates, model.chip, {"column_sums": row})

    def seconds(threads: int) -> float:
        grid = Grid((1, 1, 1), (48, threads // 48, 1))
        launch = step_model.Launch(KERNELS["column_sums"], grid, (sums, total, 3025, 48), frozenset())
        return float(counting.kernel(launch, None).seconds - step_model.GAP)

    assert seconds(48) == pytest.approx(3025 * 700 / model.chip.clock, rel=1e-3)
    assert seconds(480) == pytest.approx(seconds(48) / 10, rel=1e-3)  # each walks less


def test_a_step_is_counted_whole(step_model: Any, model: Any) -> None:
    """Every layer is there; products are those of the layers' shapes; measured convolutions stand for the model's."""
    recipe = load("alexnet-2012").replace(batch_size=8, precision="bfloat16")
    network = variants.build(recipe)
    asked = step_model.predicted(model, recipe, 8)
    parts = asked.parts
    floor = plan.floor(plan.lay_out(network, (0, 0)), [model.rates], "bfloat16", 8)
    lines = step_model.table(parts, network, floor)
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]]
    assert names == [*(line.layer for line in floor.lines), "input", "softmax"]
    belongs = step_model.lines_of(network, floor)
    conv2 = [part for (layer, _), part in parts.items() if belongs.get(layer) == "conv2"]
    sums = 2 * 2 * 8 * 128 * 27 * 27  # of the bias's gradient, in some way or other
    assert 0 <= sum(p.products for p in conv2) - 3 * 2 * (2 * 8 * 128 * 27 * 27 * 5 * 5 * 48) <= 2 * sums
    assert sum(part.instructions for part in conv2) > 0
    total = sum(part.seconds for part in parts.values())
    assert total > floor.seconds
    assert sum(part.seconds for part in asked.named.values()) == pytest.approx(total)
    assert len(step_model.longest(asked.named)) > 10

    from convolutions import convolution

    slow = {step_model.described(convolution("conv3", "fprop", 8, "bfloat16")): 1.0}
    slower = step_model.predicted(step_model.Model(model.rates, model.chip, model.counted, slow), recipe, 8)
    assert sum(part.seconds for part in slower.parts.values()) == pytest.approx(total + 2, rel=1e-3)  # two columns


def test_what_was_timed_is_read(step_model: Any, tmp_path: Path) -> None:
    from convolutions import convolution

    rows = [
        {"name": "tf32 conv1, both columns wgrad", "batch": 128, "plans": [{"microseconds": 7}, {"microseconds": 3}]},
        {"name": "bfloat16 conv2 dgrad", "batch": 128, "plans": []},
    ]
    path = tmp_path / "conv_table.json"
    path.write_text(json.dumps({"convolutions": rows}), encoding="utf-8")
    it = convolution("conv1, both columns", "wgrad", 128, "tf32")
    assert step_model.measured_convolutions(path) == {step_model.described(it): 3e-6}


def test_a_kernel_that_nobody_counted_is_said(step_model: Any, model: Any) -> None:
    recipe = load("alexnet-2012").replace(batch_size=2)
    with pytest.raises(SystemExit, match=r"has no \w+: python benchmarks/instructions.py --write"):
        step_model.predicted(step_model.Model(model.rates, model.chip, {}), recipe, 2)
