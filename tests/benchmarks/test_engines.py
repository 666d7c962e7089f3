"""The engines that minialex is timed against run the same network: same weights, same probabilities, same step."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from minialex.backend import registry
from minialex.engine.schedule import EpochRates
from minialex.network import variants
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex.speed import bench

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks' modules can be imported."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def needed(engine: str) -> ModuleType:
    """The package, which the tests' extra does not install for all engines."""
    if engine == "onnxruntime" and os.environ.get("CI"):
        return importlib.import_module(engine)
    return pytest.importorskip(engine, reason=f"no {engine} here, and nothing but benchmarks/cpu.py needs it")


def recipe_of(name: str, **changes: Any) -> Recipe:
    """Larger weights than the paper's, so that probabilities differ; of the paper's network fewer kernels."""
    changes = {"classes": 10, "dropout_mode": "inverted", **changes}
    if name == "alexnet-2012":
        changes |= {"kernels": (16, 32, 32, 32, 16), "features": (64, 64), "init": "he", "std": 0.1}
    return load(name).replace(**changes)


@pytest.mark.parametrize("name", ["small", "alexnet-2012"])
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "jax"])
@pytest.mark.usefixtures("programs")
def test_same_weights_give_the_same_probabilities(engine: str, name: str) -> None:
    needed(engine)
    recipe = recipe_of(name)
    ours = bench.random_session(recipe, registry.load("numpy"), ("cpu:0",) * recipe.columns)
    images, _ = bench.random_batch(recipe, 2)
    expected, _ = ours.probabilities(images)
    if engine == "jax":
        theirs = importlib.import_module("jax_peer").JaxSession(recipe, variants.build(recipe), ours.statistics)
        theirs.load(ours.weights())
    else:
        theirs = importlib.import_module("engines").EngineSession(engine, ours, 1)
    assert expected.std() > 0.01
    np.testing.assert_allclose(theirs.probabilities(images), expected, rtol=2e-3, atol=2e-5)
    np.testing.assert_allclose(theirs.probabilities(images[:1]), expected[:1], rtol=2e-3, atol=2e-5)


@pytest.mark.usefixtures("programs")
def test_jax_does_the_same_step() -> None:
    """Without dropout and with one possible crop and no colours, a training step does the same to the weights."""
    needed("jax")
    recipe = recipe_of("small", batch_size=4, dropout=0, colour=0, crop=32, learning_rate=0.05)
    ours = bench.random_session(recipe, registry.load("numpy"), ("cpu:0",) * recipe.columns)
    theirs = importlib.import_module("jax_peer").JaxSession(recipe, variants.build(recipe), ours.statistics)
    theirs.load(ours.weights())
    images, labels = bench.random_batch(recipe, recipe.batch_size)
    images = np.concatenate([images, images[..., ::-1]], axis=3)[..., 16:48].copy()  # reflected, they are themselves
    before = ours.weights()
    now = EpochRates(recipe.learning_rate, 0.0, {})
    for step in range(2):
        expected = ours.train(images, labels, step, now).loss
        assert theirs.train(images, labels) == pytest.approx(expected, rel=1e-4)
    found = theirs.weights()
    for name, array in ours.weights().items():
        change = array - before[name]
        assert np.abs(change).max() > 0
        np.testing.assert_allclose(found[name] - before[name], change, rtol=0, atol=2e-3 * np.abs(change).max())


@pytest.mark.usefixtures("programs")
def test_an_engines_side_answers() -> None:
    """Its process, as `benchmarks/cpu.py` asks it."""
    needed("onnxruntime")
    cpu = importlib.import_module("cpu")
    work = {"recipe": "small", "kind": "infer", "batch": 2, "checked": True}
    with cpu.servers((cpu.ONNXRUNTIME, cpu.REFERENCE), 1, {}) as started:
        found = {side: server.ask("check", **work) for side, server in started.items()}
        assert np.shape(found[cpu.ONNXRUNTIME]) == (2, 10)
        cpu.agree({**found, cpu.OURS: found[cpu.REFERENCE]})
        assert started[cpu.ONNXRUNTIME].ask("run", **work) > 0
