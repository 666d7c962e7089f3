"""Layers with arithmetic of their own in compiled steps: the same as walking, also where a parameter has four axes."""

import logging
from dataclasses import dataclass

import numpy as np
import pytest

from minialex.backend.recorder import interpret
from minialex.data.draws import Draws
from minialex.data.statistics import Statistics
from minialex.engine.session import Session
from minialex.engine.step import record
from minialex.network import own
from minialex.network.layers import ArrayLayer, Conv2d, Flatten, Linear, Parameter, ReLU
from minialex.network.network import Network
from minialex.recipe.toml import load
from minialex_numba import NumbaBackend
from minialex_numba.compiler.step import Step


@dataclass(frozen=True)
class Mixed(ArrayLayer):
    """x · w summed over w's places, minus the batch's mean; in inference the running one. It saves where x > 0."""

    def parameters(self, shape, column, columns):
        return {"weight": Parameter((shape[0], 1, 2, 3), 0.3), "mean": Parameter((shape[0],), learned=False)}

    def saved(self, x, weight, mean):
        return [x]

    def compute(self, xp, x, weight, mean, *, training):
        mean = x.mean(axis=(0, 2, 3)) if training else mean
        steady = x - mean[:, None, None]
        return steady * weight.sum(axis=(1, 2, 3))[:, None, None], steady

    def gradient(self, xp, dy, x, weight, mean, steady):
        along = (dy * steady).sum(axis=(0, 2, 3))
        places = xp.arange(1, 7, dtype=x.dtype).reshape(1, 2, 3) / 6  # another share of it at every place
        back = dy * weight.sum(axis=(1, 2, 3))[:, None, None]
        dx = back - back.mean(axis=(0, 2, 3))[:, None, None]
        return dx, along[:, None, None, None] * places, (mean - x.mean(axis=(0, 2, 3))) / 8


NET = Network("mixed", (3, 12, 12), (
    Conv2d("conv1", 8, 5, std=0.1), Mixed("mixed1"), ReLU("relu1"), Flatten("flatten"),
    Linear("fc2", 4, std=0.1, sees="all", on="first"),
))  # fmt: skip


@pytest.mark.parametrize("columns", [1, 2])
def test_a_compiled_step_does_what_walking_does(columns, caplog):
    recipe = load("small").replace(**own.changes_for(NET), columns=columns, classes=4, image_size=16, batch_size=4)
    random = np.random.default_rng(0)
    statistics = Statistics(np.full((3, 16, 16), 128, np.float32), np.eye(3))
    images, labels = random.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8), random.integers(0, 4, 4)
    backend, results = NumbaBackend(threads=2), []
    for walked in (False, True):
        session = Session(recipe, backend, ("cpu:0", "cpu:1")[:columns], statistics)
        program = record(session.plan, "train", 4, backend.devices)
        with caplog.at_level(logging.WARNING, "minialex"):
            compiled = backend.compile_step(program, session.bound)
        assert isinstance(compiled, Step)
        step = interpret(program, backend, session.bound) if walked else compiled
        draws = np.full(4, 2, np.int32), np.full(4, 1, np.int32), np.zeros(4, np.uint8), np.zeros((4, 3), np.float32)
        feed = dict(session.feed(images, labels, Draws(*draws)))
        feed |= {name: 3 if name.role == "step" else 1.0 if name.array == "mean" else 0.1 for name in program.symbols}
        for _ in range(3):
            outputs = {name: backend.to_numpy(array) for name, array in step(feed).items()}
        results.append((outputs, session.weights()))
    for ours, theirs in zip(*results, strict=True):
        for name, array in ours.items():
            np.testing.assert_allclose(array, theirs[name], rtol=1e-4, atol=1e-6, err_msg=str(name))
    assert np.abs(results[0][1]["mixed1.mean"]).min() > 0
    assert (
        "mixed1: computes in NumPy, on one core, inside the compiled step" in caplog.text or columns == 2
    )  # said once
