"""Networks with random weights, and what a correct other side may differ by.

The bound. Ours computes a network in float32 and in float64, from the same weights; the distance of the two is what
float32's roundings do to this network on these images. Another program in float32 rounds as often, in another order:
it may be as far from the float64 result, and is given sixteen times as much. In float64 it is given 2⁻²⁹ of that, the
ratio of the unit roundoffs. What is compared are logarithms of probabilities, in which an error of a
logit shows as itself. `test_onnx` shows that the errors one makes (a wrong α, a lost factor, exchanged columns) are
hundreds of such bounds large.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minialex.backend import registry
from minialex.data.statistics import Statistics
from minialex.engine.session import Session
from minialex.network import variants
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load
from minialex.runs.weights_file import Weights

THIN: dict[str, Any] = {"kernels": (8, 16, 24, 24, 16), "features": (32, 24), "classes": 7, "norm_alpha": 5.0}
SMALL = {**THIN, "crop": 67, "image_size": 72}  # 67 rows give maps of 15, 7, 3 and 1
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "small": ("small", THIN),
    "alexnet-2012": ("alexnet-2012", SMALL),
    "code145": ("code145", SMALL),
    "caffe": ("caffe", {**SMALL, "pool_ceil": True, "crop": 66}),
    "caffenet": ("caffenet", SMALL),
    "one-weird-trick": ("one-weird-trick", SMALL),
    "sixth layer": ("alexnet-2012", {**SMALL, "conv6": 16}),
    "four columns": ("small", {**THIN, "columns": 4}),
    "columns apart": ("small", {**THIN, "connect": "never"}),
    "columns together": ("small", {**THIN, "connect": "everywhere"}),
    "no conv3": ("small", {**THIN, "omit": ("conv3",), "activation": "tanh"}),
    "pooling 2 by 2": ("small", {**THIN, "pool_size": 2, "crop": 27, "dtype": "float64"}),
    "formula": ("small", {**THIN, "norm_alpha_over_n": False, "dropout": 0.0, "paddings": (0, 1, 2, 1)}),
}


def network(recipe: Recipe, seed: int = 0) -> Weights:
    """A recipe's network with random weights that keep the activations' size, and a random mean image."""
    random = np.random.default_rng(seed)
    tensors = {}
    for name, shape in whole_shapes(variants.build(recipe), recipe.columns).items():
        inputs = int(np.prod(shape[1:])) or 1
        std = 0.3 if name.endswith("bias") else (2 / inputs) ** 0.5
        if name == "conv1.weight":
            std /= 70 * recipe.pixel_scale
        tensors[name] = std * random.standard_normal(shape, np.float32)
    S = recipe.image_size
    statistics = Statistics(random.uniform(90, 150, (3, S, S)).astype(np.float32), np.diag([5000.0, 900.0, 100.0]))
    return Weights(
        recipe, tuple(f"kind {i}" for i in range(recipe.classes)), statistics, tensors, "noise", {"from": "x"}
    )


def images(recipe: Recipe, count: int = 3) -> NDArray[np.uint8]:
    """Pixels [count, 3, S, S]."""
    S = recipe.image_size
    return np.random.default_rng(5).integers(0, 256, (count, 3, S, S), np.uint8)


def centre(recipe: Recipe, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The centre crop as other programs get it."""
    first, crop = (recipe.image_size - recipe.crop) // 2, recipe.crop
    return pixels[:, :, first : first + crop, first : first + crop].astype(np.float32)


@dataclass(frozen=True)
class Ours:
    """Log-probabilities [N,K] in float64, and how far another program's may be."""

    value: NDArray[np.float64]
    bound32: float
    bound64: float


def ours(weights: Weights, pixels: NDArray[np.uint8]) -> Ours:
    """Ours on the centre view, by the reference backend."""
    values = {}
    backend = registry.load("numpy")
    for dtype in ("float32", "float64"):
        recipe = weights.recipe.replace(dtype=dtype)
        session = Session(recipe, backend, ("cpu:0",) * recipe.columns, weights.statistics, weights.tensors)
        values[dtype] = np.log(session.probabilities(pixels)[0].astype(np.float64))
    noise = np.abs(values["float32"] - values["float64"]).max() + 2.0**-24 * np.abs(values["float64"]).max()
    return Ours(values["float64"], 16 * noise, 16 * noise * 2.0**-29)


def log_softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Logarithms of the probabilities, in float64."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))


@pytest.fixture(params=KINDS)
def weights(request: pytest.FixtureRequest) -> Weights:
    """Networks of every kind that a recipe can describe."""
    name, changes = KINDS[request.param]
    return network(load(name).replace(**changes))


@pytest.fixture
def torch() -> Any:
    """PyTorch on one thread; where it is missing in CI, a failure."""
    try:
        import torch
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail("PyTorch is missing, and in CI a missing oracle is a failure")
        pytest.skip("PyTorch is not installed")
    torch.set_num_threads(1)
    return torch
