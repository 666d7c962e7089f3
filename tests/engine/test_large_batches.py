"""Layer-wise adaptive rates in whole steps, walked and compiled; CUDA's are in tests/cuda/compiler/test_updates.py."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.backend import registry
from minialex.backend.program import ArrayName
from minialex.conformance import steps

LARS = steps.RECIPE.replace(trust_coefficient=0.05)


@pytest.fixture
def lars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "RECIPE", LARS)


@pytest.fixture(scope="module")
def wanted() -> tuple[steps.Run, list[dict[ArrayName, float]]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "RECIPE", LARS)
        return steps.spread(registry.load("numpy"), "train", steps.data("float32"))


@pytest.mark.usefixtures("lars")
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_step_is_as_the_reference_has_it(name: str, wanted: tuple[steps.Run, list[dict[ArrayName, float]]]) -> None:
    backend, given = registry.load(name), steps.data("float32")
    first, last = backend.devices[0], backend.devices[-1]
    program = steps.program_of("train", "float32", (first, last), backend.devices, more=False)
    scaled = [call for call in program.calls if call.operation == "scale_by_trust_ratio"]
    assert len(scaled) == len(given.weights), "every array of every column"
    walked = steps.execute(backend, program, given)
    steps.check_run(f"{name}, walked", walked, *wanted, more=False)
    compiled = steps.compile_on(backend, program, given)
    assert (compiled is None) == (name == "numpy")
    if compiled is not None:
        steps.check_run(f"{name}, compiled", compiled, *wanted, more=False)


@pytest.mark.usefixtures("lars")
def test_a_step_moves_every_layer_by_as_much_of_its_norm() -> None:
    """The first step, without momentum: ‖Δw‖ = ε·η·‖w‖·‖dw + λw‖ / (‖dw‖ + λ‖w‖), nearly ε·η of the norm."""
    backend, given = registry.load("numpy"), steps.data("float64")
    program = steps.program_of("train", "float64", ("cpu:0", "cpu:0"), backend.devices, more=False)
    after = steps.execute(backend, program, given)[0]
    for name, before in given.weights.items():
        if name.array == "weight" and before.size:
            moved = np.linalg.norm(after[name] - before) / np.linalg.norm(before)
            assert moved == pytest.approx(0.02 * 0.05, rel=0.1), name
