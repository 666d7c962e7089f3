"""The paper's network at its full size, 60,965,224 parameters, through ONNX and PyTorch: the same probabilities."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.exchange import onnx_file, pytorch_module
from minialex.recipe.toml import load

from .conftest import centre, images, log_softmax, network, ours
from .test_onnx import run
from .test_pytorch import module


@pytest.mark.peers
@pytest.mark.slow
def test_the_papers_network(tmp_path: Path, torch: Any) -> None:
    weights = network(load("alexnet-2012").replace(norm_alpha=0.5))
    assert sum(math.prod(array.shape) for array in weights.tensors.values()) == 60_965_224
    pixels = images(weights.recipe, 2)
    expected = ours(weights, pixels)
    crops = centre(weights.recipe, pixels)
    assert expected.bound32 < 1e-2
    assert np.ptp(expected.value, axis=1).min() > 1  # probabilities that are far from even
    onnx_file.write(tmp_path / "full.onnx", weights)
    logits, _ = run((tmp_path / "full.onnx").read_bytes(), crops)
    assert np.abs(log_softmax(logits) - expected.value).max() <= expected.bound32
    net = module(pytorch_module.write(tmp_path / "full.pt", weights)).load(tmp_path / "full.pt").double()
    with torch.no_grad():
        logits = net(torch.tensor(crops).double()).numpy()
    assert np.abs(log_softmax(logits) - expected.value).max() <= expected.bound64
