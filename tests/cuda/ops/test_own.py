"""Operations and layers of somebody's own on pretend devices: the same code, with NumPy in the place of CuPy."""

import logging
from dataclasses import dataclass

import numpy as np
import pytest

from minialex.backend import operations
from minialex.backend.operations import register
from minialex.conformance.own import check_layer, check_registered
from minialex.engine.step import Plan, record
from minialex.errors import DeviceMismatch
from minialex.network.layers import ArrayLayer, Conv2d, Flatten, Linear, Parameter
from minialex.network.network import Network
from minialex.recipe.toml import load
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime


@pytest.fixture(autouse=True)
def _forgotten():
    before = dict(operations.OPERATIONS), dict(operations.FUNCTIONS)
    yield
    for held, was in zip((operations.OPERATIONS, operations.FUNCTIONS), before, strict=True):
        held.clear()
        held.update(was)


@dataclass(frozen=True)
class Centred(ArrayLayer):
    """x − the batch's mean, in inference − the running one."""

    def parameters(self, shape, column, columns):
        return {"mean": Parameter((shape[0],), learned=False)}

    def compute(self, xp, x, mean, *, training):
        return x - (x.mean(axis=(0, 2, 3)) if training else mean)[:, None, None]

    def gradient(self, xp, dy, x, mean):
        return dy - dy.mean(axis=(0, 2, 3))[:, None, None], (mean - x.mean(axis=(0, 2, 3))) / 8


@pytest.fixture
def pretend():
    return CudaBackend(runtime=FakeRuntime())


def test_the_kit_is_content(pretend):
    examples = [([(2, 3, 4, 5)], {"slope": 0.5}), ([(0, 3)], {"slope": 0.5})]
    register(
        "cuda_leaky",
        lambda xp, x, *, slope: xp.where(x > 0, x, slope * x),
        lambda xp, dy, x, *, slope: xp.where(x > 0, dy, slope * dy),
        examples=examples,
    )
    check_registered(pretend, "cuda_leaky")
    x, y = (pretend.to_device(np.ones(3, np.float32), device) for device in pretend.devices)
    with pytest.raises(DeviceMismatch, match="cuda_leaky_backward"):
        operations.OPERATIONS["cuda_leaky"].gradient(pretend, x, y, slope=0.5)


def test_a_layer_runs_and_its_step_is_walked_with_a_notice(pretend, caplog):
    layer = type("Fresh", (Centred,), {"compute": Centred.compute})("centred")
    check_layer(pretend, layer, (2, 4, 3))
    layers = (Conv2d("conv1", 4, 5), layer, Flatten("flatten"), Linear("fc2", 4, sees="all", on="first"))
    network = Network("own", (3, 28, 28), layers)
    program = record(Plan(network, ("cuda:0", "cuda:1"), load("small").replace(classes=4)), "train", 4, pretend.devices)
    with caplog.at_level(logging.WARNING, "minialex"):
        assert pretend.compile_step(program, {}) is None
    assert "centred: steps with your own operations are not compiled" in caplog.text
