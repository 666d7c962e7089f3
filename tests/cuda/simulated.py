"""The conformance kit on the CUDA backend under Numba's CUDA simulator: `test_simulator` runs this file in a process of
its own, since Numba reads ``NUMBA_ENABLE_CUDASIM`` once.

Every simulated thread is a thread of Python, so there are few examples and a network as small as its layers allow.
Counting memory takes a million numbers, and is left out.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from numba import config

from minialex.conformance import steps
from minialex.conformance.checks import CHECKS, PROFILES
from minialex.network.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    SpatialResponseNorm,
    Tanh,
)
from minialex.network.network import Network
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime

FEW = settings(PROFILES["ci"], max_examples=20)

SMALL = Network(
    "simulated",
    (3, 11, 11),
    (
        Conv2d("conv1", 16, 3, stride=2, padding=((0, 2), (0, 2)), std=0.3),
        ReLU("relu1"),
        LocalResponseNorm("norm1", size=3, alpha=0.5),
        MaxPool2d("pool1", 3, 2),
        Conv2d("conv2", 8, 3, padding=((1, 1), (1, 1)), std=0.3, bias=0.1, sees="all"),
        Tanh("tanh2"),
        SpatialResponseNorm("norm2", size=2, alpha=0.5),
        MaxPool2d("pool2", 2, 1, ceil=True, ties="all"),
        Flatten("flatten"),
        Linear("fc3", 6, std=0.3, bias=0.1, sees="all"),
        ReLU("relu3"),
        Dropout("dropout3"),
        Linear("fc4", 5, std=0.3, sees="all", on="first"),
    ),
)


@pytest.fixture(scope="module")
def cuda() -> CudaBackend:
    assert config.ENABLE_CUDASIM, "start this with NUMBA_ENABLE_CUDASIM=1"
    return CudaBackend(runtime=FakeRuntime())


@pytest.mark.parametrize("operation", [name for name in CHECKS if name not in ("compile_step", "memory_in_use")])
def test_operation_conforms(cuda: CudaBackend, operation: str) -> None:
    CHECKS[operation](cuda, FEW)


def test_steps_of_two_columns_conform(cuda: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole training and inference steps, on one pretend device and on two."""
    recipe = steps.RECIPE.replace(image_size=14, crop=11)
    for name, value in (("NETWORK", SMALL), ("IMAGE_SIZE", 14), ("RECIPE", recipe), ("BATCH", 2), ("STEPS", 2)):
        monkeypatch.setattr(steps, name, value)
    steps.check_steps(cuda, ("float32",))
