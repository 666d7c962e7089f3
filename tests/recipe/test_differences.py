"""Where the paper and the 2012 program differ: the profiles differ where they must, and only there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from minialex.backend import registry
from minialex.backend.program import ArrayName
from minialex.data import epoch_order
from minialex.data.draws import Draws, training_draws
from minialex.data.statistics import Statistics
from minialex.engine.schedule import epoch_rates, parameter_rate
from minialex.engine.session import Session
from minialex.engine.summary import summarise
from minialex.network import variants
from minialex.network.layers import Conv2d, LocalResponseNorm, MaxPool2d, ReLU, SpatialResponseNorm
from minialex.recipe.differences import DIFFERENCES, Difference
from minialex.recipe.fields import fields
from minialex.recipe.toml import load

ROOT = Path(__file__).resolve().parents[2]
PAPER, CODE = load("alexnet-2012"), load("code145")
BOTH = {"alexnet-2012": variants.build(PAPER), "code145": variants.build(CODE)}


def test_points_are_numbered_and_nothing_else_counts_them() -> None:
    assert [point.number for point in DIFFERENCES] == list(range(1, len(DIFFERENCES) + 1))
    said = [ROOT / "README.md", *(ROOT / "minialex").rglob("*.py"), *(ROOT / "minialex").rglob("*.toml")]
    counted = re.compile(r"\b(all )?\d+ points,? (where|and the fields|each with its field)|all \d+ points")
    assert [path for path in said if counted.search(path.read_text(encoding="utf-8"))] == []


def test_rows_that_pages_refer_to_are_about_what_they_say() -> None:
    about = {point.number: point.topic for point in DIFFERENCES}
    assert about[10] == "initial weights"
    assert about[11] == "crops"
    assert about[13] == "scale of the colour shift"
    assert about[26] == "share of convolutional layers in the parameters"
    cited = re.compile(r"[Rr]ows?\s+(\d+)(?:\s+(?:and|to)\s+(\d+))?\]\(\.\./made/differences\.md\)")
    for page in (ROOT / "docs" / "tutorial").glob("*.md"):
        for found in cited.findall(page.read_text(encoding="utf-8")):
            assert {int(number) for number in found if number} <= set(about), page


def test_the_one_gpu_network_is_the_papers_footnote_and_no_difference() -> None:
    """Half the kernels in conv1 to conv4; conv5 and the full layers whole: 98% of the parameters, 54% of the work."""
    half, whole = summarise(load("ablations/half")), summarise(PAPER)
    assert half.parameters == 59_798_312
    assert round(half.parameters / whole.parameters, 2) == 0.98
    assert round(half.multiply_adds / whole.multiply_adds, 2) == 0.54
    assert not any("one-GPU" in point.topic for point in DIFFERENCES)


@pytest.mark.parametrize("point", DIFFERENCES, ids=lambda point: f"{point.number}-{point.topic}")
def test_profiles_choose_as_stated(point: Difference) -> None:
    assert set(point.fields) <= set(fields())
    assert point.fields or point.note  # a point without a choice says why
    chosen = {field for field in point.fields if getattr(PAPER, field) != getattr(CODE, field)}
    assert bool(chosen) == point.profiles_differ
    if not point.profiles_differ:
        assert point.note or "conv" in point.program or point.paper == point.program or point.number in (9,)


def test_no_difference_between_the_profiles_is_unexplained() -> None:
    explained = {field for point in DIFFERENCES for field in point.fields}
    assert set(PAPER.differences(CODE)) <= explained


def order_of(name: str) -> list[str]:
    return [layer.name for layer in BOTH[name].layers]


def test_6_order_in_layer_1() -> None:
    assert order_of("alexnet-2012")[:4] == ["conv1", "relu1", "norm1", "pool1"]
    assert order_of("code145")[:4] == ["conv1", "norm1", "relu1", "pool1"]
    # the program's normalisation sees negative values, so what comes out differs
    x = np.random.default_rng(0).normal(0, 50, (1, 8, 3, 3))
    backend = registry.load("numpy")
    norm, relu = LocalResponseNorm("n", alpha=1.0), ReLU("r")

    def through(*layers: LocalResponseNorm | ReLU) -> np.ndarray:
        from minialex.network.layers import Context

        y = backend.to_device(x, "cpu:0")
        for layer in layers:
            y, _ = layer.forward(backend, {}, y, Context())
        return np.asarray(backend.to_numpy(y))

    assert not np.allclose(through(norm, relu), through(relu, norm))


def test_7_spatial_normalisation() -> None:
    spatial = [layer for layer in BOTH["code145"].layers if isinstance(layer, SpatialResponseNorm)]
    assert len(spatial) == 1
    assert (spatial[0].size, spatial[0].k, spatial[0].beta) == (5, 1.0, 0.75)
    assert spatial[0].coefficient == pytest.approx(0.001 / 25)
    assert not any(isinstance(layer, SpatialResponseNorm) for layer in BOTH["alexnet-2012"].layers)
    assert order_of("code145")[4:9] == ["conv2", "relu2", "norm2", "spatial2", "pool2"]


def test_10_initial_weights() -> None:
    stds = {name: {la.name: la.std for la in net.layers if isinstance(la, Conv2d)} for name, net in BOTH.items()}
    assert set(stds["alexnet-2012"].values()) == {0.01}
    assert stds["code145"] == {"conv1": 0.01, "conv2": 0.01, "conv3": 0.03, "conv4": 0.03, "conv5": 0.03}


def draws(recipe_name: str, images: int = 64) -> Draws:
    chosen = load(recipe_name)
    flat = Statistics(np.full((3, 256, 256), 120, np.float32), np.diag([400.0, 100.0, 25.0]))
    return training_draws(
        images,
        seed=0,
        step=3,
        size=256,
        crop=224,
        crop_positions=chosen.crop_positions,
        crop_chunk=chosen.crop_chunk,
        colour=chosen.colour,
        colour_scale=chosen.colour_scale,
        statistics=flat,
    )


def test_11_crops_are_shared_by_32_images() -> None:
    drawn = draws("code145")
    top, left, flip, shift = drawn.top, drawn.left, drawn.flip, drawn.shift
    for first in (0, 32):
        assert (
            len({*zip(top[first : first + 32], left[first : first + 32], flip[first : first + 32], strict=True)}) == 1
        )
    assert len(np.unique(shift, axis=0)) == 64  # colours are each image's own (15)
    free = draws("alexnet-2012")
    assert len({*zip(free.top, free.left, free.flip, strict=True)}) > 50


def test_12_13_19_what_is_taken_off_and_multiplied() -> None:
    """One batch through `augment` as each profile plans it."""
    backend = registry.load("numpy")
    rng = np.random.default_rng(1)
    small = {"model": "alexnet_small", "classes": 10, "crop": 28, "image_size": 32, "batch_size": 2}
    found = Statistics(rng.uniform(90, 150, (3, 32, 32)).astype(np.float32), np.eye(3))
    images = rng.integers(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    draws = Draws(
        *(np.array(a, np.int32) for a in ([0, 4], [3, 1])), np.array([1, 0], np.uint8), np.zeros((2, 3), np.float32)
    )
    results = {}
    for name in ("alexnet-2012", "code145"):
        session = Session(load(name).replace(**small), backend, ("cpu:0",) * 2, found)
        feed = session.feed(images, np.zeros(2, np.int64), draws)
        args = [feed[ArrayName(role=key, device="cpu:0")] for key in ("images", "shift", "top", "left", "flip")]
        plan = session.plan
        cut = backend.augment(
            args[0],
            session.bound[ArrayName(role="mean", device="cpu:0")],
            *args[1:],
            crop=28,
            factor=plan.factor("train"),
            mean_follows=plan.mean_follows,
        )
        results[name] = backend.to_numpy(cut)
    pixels = images.astype(np.float32)
    follow = (pixels - found.mean)[:, :, :, :]
    expected_paper = np.stack([follow[0][:, 0:28, 3:31][:, :, ::-1], follow[1][:, 4:32, 1:29]])
    centre = found.mean[:, 2:30, 2:30]
    cut_pixels = np.stack([pixels[0][:, 0:28, 3:31][:, :, ::-1], pixels[1][:, 4:32, 1:29]])
    expected_code = (cut_pixels - centre) / 1.1
    np.testing.assert_allclose(results["alexnet-2012"], expected_paper, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(results["code145"], expected_code, rtol=1e-6, atol=1e-4)


def test_13_scale_of_the_colour_shift() -> None:
    found = Statistics(np.zeros((3, 8, 8), np.float32), np.diag([10_000.0, 1.0, 1.0]))
    common = {"seed": 0, "step": 0, "size": 8, "crop": 8, "colour": 0.1, "statistics": found}
    stdev = training_draws(500, colour_scale="stdev", **common).shift  # type: ignore[arg-type]
    eigenvalue = training_draws(500, colour_scale="eigenvalue", **common).shift  # type: ignore[arg-type]
    assert np.abs(stdev).max(axis=1).std() < 20
    assert stdev[:, 0].std() == pytest.approx(10, rel=0.1)  # 0.1 · √10,000
    np.testing.assert_allclose(eigenvalue[:, 0], 100 / 255 * stdev[:, 0], rtol=1e-5)  # colours from 0 to 1


def test_17_18_rates_and_schedule() -> None:
    names = ["conv2.weight", "conv2.bias"]
    first = {
        name: {n: parameter_rate(r, epoch_rates(r, 1, []), *n.split(".")) for n in names}
        for name, r in (("alexnet-2012", PAPER), ("code145", CODE))
    }
    assert first == {
        "alexnet-2012": {"conv2.weight": 0.01, "conv2.bias": 0.01},
        "code145": {"conv2.weight": 0.01, "conv2.bias": 0.002},
    }
    improving = [0.9 - 0.005 * epoch for epoch in range(60)]
    assert epoch_rates(PAPER, 61, improving).learning_rate == 0.01  # no plateau, no cut
    assert epoch_rates(CODE, 61, improving).learning_rate == 0.0001


def test_22_ties() -> None:
    ties = {name: {la.ties for la in net.layers if isinstance(la, MaxPool2d)} for name, net in BOTH.items()}
    assert ties == {"alexnet-2012": {"first"}, "code145": {"all"}}


def test_25_order_of_images() -> None:
    def orders(shuffle: str) -> list[list[int]]:
        return [list(epoch_order(50, seed=0, epoch=epoch, shuffle=shuffle)) for epoch in (1, 2)]

    assert orders(PAPER.shuffle)[0] != orders(PAPER.shuffle)[1]
    assert orders(CODE.shuffle)[0] == orders(CODE.shuffle)[1] != list(range(50))
