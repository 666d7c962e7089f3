"""The peer that minialex is timed against is the same network: same weights, same logits, same gradients."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from minialex.backend import registry
from minialex.data.statistics import Statistics
from minialex.engine.schedule import EpochRates
from minialex.network import variants
from minialex.recipe.toml import load
from minialex.speed import bench

try:
    import torch
except ImportError:
    if os.environ.get("CI"):
        raise
    pytest.skip("PyTorch is not installed", allow_module_level=True)

pytestmark = pytest.mark.peers
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def module(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


peer = module("peer")


def pair(recipe):
    """Both sides with the same weights, and a batch."""
    ours = bench.random_session(recipe, registry.load("numpy"), ("cpu:0",) * recipe.columns)
    theirs = peer.PeerSession(recipe, variants.build(recipe), ours.statistics)
    theirs.model.load(ours.weights())
    return ours, theirs, *bench.random_batch(recipe, recipe.batch_size)


def test_the_peer_has_the_papers_parameters():
    network = variants.build(load("alexnet-2012"))
    with torch.device("meta"):
        model = peer.Peer(network, 2)
    assert sum(p.numel() for p in model.parameters()) == 60_965_224
    assert model.around == (0, 3, 0, 3)
    assert [module.groups for module in model.modules() if isinstance(module, torch.nn.Conv2d)] == [1, 2, 1, 2, 2]


@pytest.mark.parametrize("small", [True, False])
def test_same_weights_give_the_same_probabilities(small):
    # not the paper's way of dropout, which scales at test time; larger weights, so that probabilities differ
    changes = {"dropout_mode": "inverted", "batch_size": 2}
    if not small:  # the paper's layers with fewer kernels and features
        changes |= {"kernels": (16, 32, 32, 32, 16), "features": (64, 64), "classes": 10, "init": "he", "std": 0.1}
    recipe = load("small" if small else "alexnet-2012").replace(**{"classes": 10, **changes})
    ours, theirs, images, labels = pair(recipe)
    expected, _ = ours.probabilities(images, labels)
    found = theirs.probabilities(torch.from_numpy(images))
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5)


def test_same_step():
    """Without dropout and with one possible crop and no colours, a training step does the same to the weights."""
    recipe = load("small").replace(classes=10, batch_size=8, dropout=0, colour=0, crop=32, learning_rate=0.05)
    ours, theirs, images, labels = pair(recipe)
    images = np.concatenate([images, images[..., ::-1]], axis=3)[..., 16:48]  # reflected, they are themselves
    before = ours.weights()
    now = EpochRates(recipe.learning_rate, 0.0, {})
    for step in range(2):
        expected = ours.train(np.ascontiguousarray(images), labels, step, now).loss
        loss = theirs.train(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(labels))
        assert loss == pytest.approx(expected, rel=1e-4)
    for name, array in ours.weights().items():
        change = array - before[name]
        found = theirs.model.state_dict()[name].numpy() - before[name]
        assert np.abs(change).max() > 0
        np.testing.assert_allclose(found, change, rtol=0, atol=2e-3 * np.abs(change).max())


def test_a_training_step_may_follow_inference_of_as_many_images():
    _, theirs, images, labels = pair(load("small").replace(classes=10, batch_size=2))
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    theirs.probabilities(images)
    assert np.isfinite(theirs.train(images, labels))


def test_augmentation_is_the_same_kind():
    """Each image is some crop of itself, perhaps reflected, less that part of the mean, plus one colour."""
    recipe = load("small").replace(classes=10, batch_size=16, colour=0.1)
    random = np.random.default_rng(0)
    mean = random.uniform(0, 255, (3, 32, 32)).astype(np.float32)
    covariance = np.array([[4000.0, 500, 0], [500, 5000, 100], [0, 100, 3000]])
    session = peer.PeerSession(recipe, variants.build(recipe), Statistics(mean, covariance))
    images, _ = bench.random_batch(recipe, 16)
    whole = session.augment(torch.from_numpy(images), True).numpy() / recipe.pixel_scale
    assert whole.shape == (16, 3, 32, 32), "with the zeros that conv1 wants around it"
    cut = whole[:, :, 2:30, 2:30].copy()
    whole[:, :, 2:30, 2:30] = 0
    assert not whole.any()
    centred = images - mean
    places, flips, shifts = set(), set(), []
    for n in range(16):
        matches = []
        for top in range(5):
            for left in range(5):
                for flip in (0, 1):
                    own = centred[n, :, top : top + 28, left : left + 28]
                    difference = cut[n] - (own[..., ::-1] if flip else own)
                    if np.ptp(difference, axis=(1, 2)).max() < 0.01:
                        matches.append((top, left, flip, difference.mean(axis=(1, 2))))
        assert len(matches) == 1
        places.add(matches[0][:2])
        flips.add(matches[0][2])
        shifts.append(matches[0][3])
    assert len(places) > 5
    assert flips == {0, 1}
    assert 1 < np.std(shifts) < 20
    centre = session.augment(torch.from_numpy(images), False).numpy() / recipe.pixel_scale
    np.testing.assert_allclose(centre[:, :, 2:30, 2:30], centred[:, :, 2:30, 2:30], atol=1e-3)


def test_watching_the_peer_names_every_layer():
    recipe = load("small").replace(classes=10, batch_size=4)
    _, theirs, images, labels = pair(recipe)
    images, labels = torch.from_numpy(images), torch.from_numpy(labels)
    seconds = theirs.watched(lambda watch: theirs.train(images, labels, watch))
    layers = [layer.name for layer in variants.build(recipe).layers]
    assert set(seconds) == {
        ("input", "input"), ("softmax", "forward"), ("softmax", "backward"), ("all", "update"),
        *((name, phase) for name in layers for phase in ("forward", "backward")),
    }  # fmt: skip
    assert seconds["norm1", "backward"] > seconds["flatten", "backward"]
    only = theirs.watched(lambda watch: theirs.probabilities(images, watch))
    assert {phase for _, phase in only} == {"input", "forward"}


def test_sides_answer_and_do_an_epoch():
    """Both sides' processes, as `benchmarks/cpu.py` asks them."""
    cpu = module_of_cpu()
    with cpu.servers((cpu.OURS, cpu.INSTALLED), 1, {}) as started:
        for side, server in started.items():
            work = {"recipe": "small", "kind": "train", "batch": 2}
            assert server.ask("run", **work) > 0
            assert server.ask("watch", **work) > 0
            found = server.ask("parts", **work, peaks=[1e10, 1e10])
            assert any(part[:2] == ["conv1", "backward"] for part in found), side
            assert server.ask("memory")["peak"] > 1 << 20
            epoch = {"recipe": "small", "data": "shapes", "images": 100, "number": 1, "steps": 2}
            assert server.ask("epoch", **epoch) > 0
    assert all(server.process.returncode == 0 for server in started.values())


def module_of_cpu():
    import sys

    sys.path.insert(0, str(BENCHMARKS))
    try:
        return module("cpu")
    finally:
        sys.path.remove(str(BENCHMARKS))
