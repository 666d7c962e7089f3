"""The three layers: what the conformance kit asks of any, and PyTorch's numbers."""

import os

import numpy as np
import pytest
from minialex_layers import GELU, BatchNorm2d, LeakyReLU

from minialex.backend import registry
from minialex.conformance.own import check_layer, check_registered
from minialex.network.layers import Context

SHAPE = (4, 5, 6)
LAYERS = [LeakyReLU("leaky", 0.1), GELU("gelu"), BatchNorm2d("norm")]
named = pytest.mark.parametrize("name", ["numpy", "numba"])
each = pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)


@named
@each
def test_it_is_what_the_kit_asks(name, layer):
    check_layer(registry.load(name), layer, SHAPE)


@named
def test_the_operation_is_what_the_kit_asks(name):
    check_registered(registry.load(name), "leaky_relu")


def peers():
    """PyTorch's modules by our layers' names; without PyTorch the tests are skipped, but not in CI."""
    torch = __import__("torch") if os.environ.get("CI") else pytest.importorskip("torch")
    nn = torch.nn
    return torch, {"leaky": nn.LeakyReLU(0.1), "gelu": nn.GELU("tanh"), "norm": nn.BatchNorm2d(SHAPE[0])}


@named
@each
def test_it_agrees_with_pytorch_over_steps_of_training_and_then_in_inference(name, layer):
    torch, modules = peers()
    peer, backend, random = modules[layer.name].double(), registry.load(name), np.random.default_rng(0)
    sizes = layer.parameters(SHAPE, 0, 1)
    arrays = {key: np.full(p.shape, p.constant) for key, p in sizes.items()}
    for training in (True, True, True, False):
        x, dy = (3 + 2 * random.standard_normal((7, *SHAPE)) for _ in range(2))
        there = {key: backend.to_device(array, "cpu:0") for key, array in arrays.items()}
        context = Context(training)
        y, saved = layer.forward(backend, there, backend.to_device(x, "cpu:0"), context)
        peer.train(training)
        given = torch.tensor(x, requires_grad=True)
        result = peer(given)
        np.testing.assert_allclose(backend.to_numpy(y), result.detach().numpy(), rtol=1e-9, atol=1e-12)
        if not training:
            continue
        dx, gradients = layer.backward(backend, there, saved, backend.to_device(dy, "cpu:0"), context)
        peer.zero_grad()
        result.backward(torch.tensor(dy))
        np.testing.assert_allclose(backend.to_numpy(dx), given.grad.numpy(), rtol=1e-8, atol=1e-10)
        for key, parameter in peer.named_parameters():
            np.testing.assert_allclose(backend.to_numpy(gradients[key]), parameter.grad.numpy(), rtol=1e-8)
        for key in [key for key in sizes if not sizes[key].learned]:
            arrays[key] = arrays[key] - backend.to_numpy(gradients[key])
            np.testing.assert_allclose(arrays[key], dict(peer.named_buffers())[key].numpy(), rtol=1e-9)


def test_no_file_is_longer_than_a_screen():
    folder = os.path.dirname(__import__("minialex_layers").__file__)
    for file in os.listdir(folder):
        if file.endswith(".py"):
            with open(os.path.join(folder, file), encoding="utf-8") as lines:
                assert len(lines.readlines()) <= 42, file
