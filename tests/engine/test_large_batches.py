"""Layer-wise adaptive rates in whole steps, walked and compiled; CUDA's are in tests/cuda/compiler/test_updates.py."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.backend import registry
from minialex.backend.program import ArrayName
from minialex.conformance import steps
from minialex.data import load
from minialex.engine.opening import new_session
from minialex.engine.schedule import epoch_rates
from minialex.recipe.toml import load as load_recipe

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


def test_a_network_learns_with_large_batches() -> None:
    """All images are one batch, at a rate that without scaling makes numbers that are not finite within a few steps."""
    images = load("shapes", train_images=32, validation_images=8)
    fields = {"learning_rate": 10.0, "kernels": (4, 4, 4, 4, 4), "features": (16, 16), "dropout": 0.0, "colour": 0.0}
    fields |= {"crops": "centre", "reflect": False, "batch_size": 32}
    losses = {}
    for trust, count in ((0.004, 20), (0.0, 5)):
        recipe = load_recipe("small").replace(trust_coefficient=trust, **fields)
        session = new_session(recipe, images, registry.load("numpy"))
        rates = epoch_rates(session.recipe, 1, [])
        feeds = (
            session.upload(images.train.read(np.arange(32)), images.train.labels, step, rates) for step in range(count)
        )
        losses[trust] = [session.finish(session.start(feed)).loss for feed in feeds]
    assert losses[0.004][-1] < 0.9 * losses[0.004][0]
    assert not np.isfinite(losses[0.0][-1]) or losses[0.0][-1] > losses[0.0][0]
