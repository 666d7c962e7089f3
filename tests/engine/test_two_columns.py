"""Two columns: where they live changes no bit, they are PyTorch's grouped network, and what crosses is counted."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest

from minialex.backend import recorder, registry
from minialex.backend.program import STEP, ArrayName
from minialex.engine.columns import Executor, Placement
from minialex.engine.step import Plan, make_step, rate_name, record
from minialex.errors import DeviceMismatch
from minialex.network import models
from minialex.network.layers import Context, Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters, join_columns, split_columns
from minialex.philox import Stream, purpose, words
from minialex.recipe.fields import Recipe

BACKEND = registry.load("numpy")
ONE, TWO = ("cpu:0", "cpu:0"), ("cpu:0", "cpu:1")
AROUND = ((1, 1), (1, 1))


def network(scope: Any = "own") -> Network:
    return Network(
        "test",
        (3, 30, 30),
        (
            Conv2d("conv1", 8, 5, 2, ((0, 3), (0, 3)), std=0.1),
            ReLU("relu1"),
            LocalResponseNorm("norm1", alpha=2.0, sees=scope),
            MaxPool2d("pool1"),
            Conv2d("conv2", 12, 3, 1, AROUND, std=0.1),
            ReLU("relu2"),
            MaxPool2d("pool2"),
            Conv2d("conv3", 8, 3, 1, AROUND, std=0.1, sees="all"),
            ReLU("relu3"),
            Flatten("flatten"),
            Linear("fc6", 12, std=0.1, sees="all"),
            Dropout("dropout6"),
            Linear("fc8", 7, std=0.1, sees="all", on="first"),
        ),
    )


IMAGES = np.random.default_rng(0).normal(size=(4, 3, 30, 30))
LABELS = np.array([0, 1, 6, 3])
MOMENT = Context(training=True, seed=3, step=5)


def run(
    net: Network, placement: Placement, executor: type[Executor] = Executor
) -> tuple[float, dict[str, Any], Executor]:
    """Loss and whole gradients of one float64 batch."""
    columns = executor(net, BACKEND, placement)
    pieces = initial_parameters(net, len(placement), 3, "float64")
    parameters = {name: BACKEND.to_device(a, placement[name.column]) for name, a in pieces.items()}
    outputs, saved = columns.forward(parameters, [BACKEND.to_device(IMAGES, device) for device in placement], MOMENT)
    labels = BACKEND.to_device(LABELS, placement[0])
    loss, probs = columns.loss(outputs, labels)
    gradients = columns.backward(parameters, saved, columns.loss_gradient(probs, labels), MOMENT)
    whole = join_columns({name: BACKEND.to_numpy(gradients[name]) for name in pieces})
    return float(BACKEND.to_numpy(loss)), whole, columns


@pytest.mark.parametrize("scope", ["own", "all"])
def test_placement_changes_no_bit(scope: str) -> None:
    (loss, gradients, _), (loss_2, gradients_2, _) = run(network(scope), ONE), run(network(scope), TWO)
    assert loss == loss_2
    for name, gradient in gradients.items():
        np.testing.assert_array_equal(gradient, gradients_2[name])


@pytest.mark.parametrize("placement", [ONE, TWO])
def test_exchange_is_what_the_shapes_say(placement: Placement) -> None:
    _, _, executor = run(network(), placement)
    expected = network().exchanged_bytes(2, 4, 8)
    assert set(expected) == {"conv3", "fc6", "fc8"}  # nothing at layers that see their own column
    for direction in ("forward", "backward"):
        assert {layer: n for (layer, d), n in executor.exchanged.items() if d == direction} == expected


def torch_run(net: Network) -> tuple[float, dict[str, Any]]:
    """The same network in PyTorch: grouped convolutions, normalisation per half (or whole)."""
    try:
        import torch
        import torch.nn.functional as F
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail("PyTorch is missing, and in CI a missing oracle is a failure")
        pytest.skip("PyTorch is not installed")
    weights = join_columns(initial_parameters(net, 2, 3, "float64"))
    t = {name: torch.tensor(array, requires_grad=True) for name, array in weights.items()}
    h = F.relu(F.conv2d(F.pad(torch.tensor(IMAGES), (0, 3, 0, 3)), t["conv1.weight"], t["conv1.bias"], stride=2))
    halves = h.chunk(2, 1) if net.layer("norm1").sees == "own" else (h,)
    h = torch.cat([F.local_response_norm(part, 5, alpha=2.0, beta=0.75, k=2.0) for part in halves], 1)
    h = F.max_pool2d(h, 3, 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, t["conv2.weight"], t["conv2.bias"], padding=1, groups=2)), 3, 2)
    h = F.relu(F.conv2d(h, t["conv3.weight"], t["conv3.bias"], padding=1)).flatten(1)
    h = F.linear(h, t["fc6.weight"], t["fc6.bias"])
    mask = words(Stream(3, purpose("dropout/dropout6"), 5), 4, 12) >= 2**31
    h = F.linear(h * torch.tensor(mask), t["fc8.weight"], t["fc8.bias"])
    loss = F.cross_entropy(h, torch.tensor(LABELS))
    loss.backward()
    return loss.item(), {name: tensor.grad.numpy() for name, tensor in t.items()}


def distance(gradients: dict[str, Any], others: dict[str, Any]) -> float:
    return max(float(np.abs(gradients[n] - others[n]).max() / np.abs(others[n]).max()) for n in others)


@pytest.mark.peers
@pytest.mark.parametrize("scope", ["own", "all"])
def test_agrees_with_grouped_convolutions_in_torch(scope: str) -> None:
    loss, gradients, _ = run(network(scope), TWO)
    expected_loss, expected = torch_run(network(scope))
    assert loss == pytest.approx(expected_loss, rel=1e-13)
    assert distance(gradients, expected) < 1e-12


def test_normalisation_across_columns_differs_only_at_the_border() -> None:
    x = np.random.default_rng(1).normal(size=(2, 16, 4, 4))
    pieces = [BACKEND.to_device(x[:, :8], "cpu:0"), BACKEND.to_device(x[:, 8:], "cpu:1")]
    norms = {}
    for scope in ("own", "all"):
        norm = LocalResponseNorm("norm", alpha=2.0, sees=scope)  # type: ignore[arg-type]
        net = Network("n", (16, 4, 4), (Conv2d("c", 16, 1), norm))
        executor = Executor(net, BACKEND, TWO)
        seen = executor._gather(executor.stages[1], pieces) if scope == "all" else pieces
        parts = [norm.forward(BACKEND, {}, seen[c], Context(column=c, columns=2))[0] for c in (0, 1)]
        norms[scope] = np.concatenate([BACKEND.to_numpy(part) for part in parts], axis=1)
    whole, _ = BACKEND.local_response_norm(BACKEND.to_device(x, "cpu:0"), size=5, k=2.0, alpha=0.4, beta=0.75)
    np.testing.assert_array_equal(norms["all"], BACKEND.to_numpy(whole))
    differs = (norms["own"] != norms["all"]).any(axis=(0, 2, 3))
    assert list(np.flatnonzero(differs)) == [6, 7, 8, 9]


class OneReaderLost(Executor):
    def _scatter(self, stage: Any, gradients: Any) -> Any:
        return super()._scatter(stage, [gradients[0], *[self.backend.scale(g, 0.0) for g in gradients[1:]]])


class CountedTwice(Executor):
    def _scatter(self, stage: Any, gradients: Any) -> Any:
        return [self.backend.add(g, g) for g in super()._scatter(stage, gradients)]


class ColumnsSwapped(Executor):
    def _gather(self, stage: Any, pieces: Any) -> Any:
        copies = [self.backend.copy_to(p, d) for p, d in zip(pieces[::-1], self.placement, strict=True)]
        return super()._gather(stage, copies)


class OwnOnly(Executor):
    def _gather(self, stage: Any, pieces: Any) -> Any:
        return [self.backend.concat([pieces[c]] * len(pieces)) for c in range(stage.columns)]


class CopyForgotten(Executor):
    def _send(self, piece: Any, receiver: int, sender: int, layer: str, direction: str) -> Any:
        return piece


@pytest.mark.peers
@pytest.mark.parametrize("wrong", [OneReaderLost, CountedTwice, ColumnsSwapped, OwnOnly])
def test_wrong_executors_are_caught(wrong: type[Executor]) -> None:
    _, expected = torch_run(network())
    _, gradients, _ = run(network(), TWO, wrong)
    assert distance(gradients, expected) > 1e-3
    assert distance(run(network(), TWO)[1], expected) < 1e-12


def test_a_forgotten_copy_is_an_error() -> None:
    with pytest.raises(DeviceMismatch, match="live on different devices"):
        run(network(), TWO, CopyForgotten)


def trained(placement: Placement, interpreted: bool = False, steps: int = 4) -> dict[str, Any]:
    """Weights after some float32 steps of alexnet_small."""
    net = models.ALEXNET_SMALL
    plan = Plan(net, placement, Recipe(image_size=32, seed=4, pixel_scale=1 / 64))
    pieces = initial_parameters(net, 2, 4)
    bound = {n: BACKEND.to_device(a, placement[n.column]) for n, a in pieces.items()}
    bound |= {n.to("momentum"): BACKEND.zeros(a.shape, "float32", placement[n.column]) for n, a in pieces.items()}
    bound |= {
        ArrayName(role="mean", device=d): BACKEND.to_device(np.full((3, 32, 32), 120, np.float32), d)
        for d in plan.devices
    }
    if interpreted:
        step = recorder.interpret(record(plan, "train", 8, BACKEND.devices), BACKEND, bound)
    else:
        step = make_step(BACKEND, plan, "train", 8, bound)
    random = np.random.default_rng(0)
    for number in range(steps):
        arrays = {
            "images": random.integers(0, 256, (8, 3, 32, 32)).astype(np.uint8),
            "shift": random.normal(size=(8, 3)).astype(np.float32),
            "top": random.integers(0, 5, 8).astype(np.int32),
            "left": random.integers(0, 5, 8).astype(np.int32),
            "flip": random.integers(0, 2, 8).astype(np.uint8),
        }
        feed: dict[ArrayName, Any] = {
            ArrayName(role=k, device=d): BACKEND.to_device(v, d) for k, v in arrays.items() for d in plan.devices
        }
        feed |= {STEP: number, ArrayName(role="labels"): BACKEND.to_device(random.integers(0, 10, 8), "cpu:0")}
        outputs = step(feed | {rate_name(n): 0.01 for n in pieces})
        assert all(BACKEND.to_numpy(v) == 0 for k, v in outputs.items() if k.role == "skipped")
    return {n: BACKEND.to_numpy(bound[n]) for n in pieces}


def test_training_steps_give_the_same_bits_on_one_and_two_devices_and_as_a_program() -> None:
    one, two, recorded = trained(ONE), trained(TWO), trained(TWO, interpreted=True)
    start = initial_parameters(models.ALEXNET_SMALL, 2, 4)
    for name, weights in one.items():
        assert not np.array_equal(weights, start[name]), name
        np.testing.assert_array_equal(weights, two[name])
        np.testing.assert_array_equal(weights, recorded[name])


@pytest.mark.peers
@pytest.mark.slow
def test_the_papers_network_at_full_size_agrees_with_torch() -> None:
    """Forward and backward on a batch of 2 in float64, without dropout (whose masks have their own test)."""
    try:
        import torch
        import torch.nn.functional as F
    except ImportError:
        if os.environ.get("CI"):
            pytest.fail("PyTorch is missing, and in CI a missing oracle is a failure")
        pytest.skip("PyTorch is not installed")
    net = models.ALEXNET
    whole = join_columns(initial_parameters(net, 2, 0, "float64"))
    x = np.random.default_rng(0).normal(0, 60, (2, 3, 224, 224))
    labels = np.array([3, 999])
    executor = Executor(net, BACKEND, TWO)
    moment = Context(training=True, seed=1, step=0)
    pieces = split_columns(net, 2, whole)
    parameters = {name: BACKEND.to_device(a, TWO[name.column]) for name, a in pieces.items()}
    outputs, saved = executor.forward(parameters, [BACKEND.to_device(x, d) for d in TWO], moment)
    device_labels = BACKEND.to_device(labels, TWO[0])
    loss, probs = executor.loss(outputs, device_labels)
    gradients = executor.backward(parameters, saved, executor.loss_gradient(probs, device_labels), moment)
    ours = join_columns({name: BACKEND.to_numpy(gradients[name]) for name in pieces})
    del gradients, saved

    t = {name: torch.tensor(array, requires_grad=True) for name, array in whole.items()}

    def norm(h: Any) -> Any:
        return torch.cat([F.local_response_norm(half, 5, alpha=1e-4, beta=0.75, k=2.0) for half in h.chunk(2, 1)], 1)

    def drop(h: Any, layer: str) -> Any:
        mask = words(Stream(1, purpose(f"dropout/{layer}"), 0), 2, 4096) >= 2**31
        return h * torch.tensor(mask)

    def conv(h: Any, layer: str, **how: Any) -> Any:
        return F.relu(F.conv2d(h, t[f"{layer}.weight"], t[f"{layer}.bias"], **how))

    h = F.max_pool2d(norm(conv(F.pad(torch.tensor(x), (0, 3, 0, 3)), "conv1", stride=4)), 3, 2)
    h = F.max_pool2d(norm(conv(h, "conv2", padding=2, groups=2)), 3, 2)
    h = conv(conv(conv(h, "conv3", padding=1), "conv4", padding=1, groups=2), "conv5", padding=1, groups=2)
    h = F.max_pool2d(h, 3, 2).flatten(1)
    h = drop(F.relu(F.linear(h, t["fc6.weight"], t["fc6.bias"])), "dropout6")
    h = drop(F.relu(F.linear(h, t["fc7.weight"], t["fc7.bias"])), "dropout7")
    expected = F.cross_entropy(F.linear(h, t["fc8.weight"], t["fc8.bias"]), torch.tensor(labels))
    expected.backward()
    assert float(BACKEND.to_numpy(loss)) == pytest.approx(expected.item(), rel=1e-12)
    for name, gradient in ours.items():
        theirs = t[name].grad.numpy()
        assert np.abs(gradient - theirs).max() <= 1e-10 * np.abs(theirs).max(), name
