"""A loaded network: whatever a picture comes as, the answer is one, and that of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minialex
from minialex.cli.app import run as command
from minialex.errors import CheckpointError, ConfigurationError, DataError


@pytest.fixture
def net(there: Path) -> minialex.TrainedNet:
    return minialex.load("runs/shapes", backend="numpy")


def test_any_kind_of_picture_gives_the_same_answer(net: minialex.TrainedNet) -> None:
    picture = Image.open("photo.png")
    pixels = np.asarray(picture)
    answer = net.predict("photo.png")
    assert len(answer) == 5
    assert [probability for _, probability in answer] == sorted((p for _, p in answer), reverse=True)
    assert all(name in net.class_names for name, _ in answer)
    for one in (Path("photo.png"), picture, pixels, pixels.transpose(2, 0, 1)):
        assert net.predict(one) == answer
    several = [Path("photo.png"), picture, pixels]
    batch = np.stack([pixels] * 2)
    for many, count in ((several, 3), (batch, 2), (batch.transpose(0, 3, 1, 2), 2), (["photo.png"], 1)):
        found = net.predict(many)
        assert [[name for name, _ in row] for row in found] == [[name for name, _ in answer]] * count
        np.testing.assert_allclose([[p for _, p in row] for row in found], [[p for _, p in answer]] * count, rtol=1e-5)
    assert len(net.predict("photo.png", top=3)) == 3
    assert net.predict("photo.png", views=10) != answer


def test_pictures_of_other_sizes_and_modes_are_treated_as_files_are(net: minialex.TrainedNet, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wide = Image.fromarray(random.integers(0, 256, (40, 70, 3), np.uint8))
    for number, picture in enumerate((wide, wide.convert("L"), wide.convert("RGBA"), wide.rotate(90, expand=True))):
        picture.save(tmp_path / f"{number}.png")
        np.testing.assert_array_equal(net.pixels(picture), net.pixels(tmp_path / f"{number}.png"))
        if picture.mode != "RGBA":
            np.testing.assert_array_equal(net.pixels(np.asarray(picture)), net.pixels(picture))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    wide.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(net.pixels(Image.open(tmp_path / "turned.png")), net.pixels(tmp_path / "turned.png"))


def test_features_are_the_layers_activations(net: minialex.TrainedNet) -> None:
    pixels = net.pixels(["photo.png", "photo.png"])
    expected = net.session.activations(pixels, ["conv5", "relu7"])
    np.testing.assert_array_equal(net.features(pixels, layer="conv5"), expected["conv5"])
    np.testing.assert_array_equal(net.features(pixels), expected["relu7"])
    many = np.concatenate([pixels] * 40)
    assert net.features(many, "fc7").shape == (80, 8)


def test_the_command_line_says_the_same(net: minialex.TrainedNet, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["predict", "runs/shapes", "photo.png", "--backend", "numpy"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:6]
    assert [line.split(maxsplit=1)[1] for line in lines] == [name for name, _ in net.predict("photo.png")]
    assert [line.split()[0] for line in lines] == [f"{p:.2%}" for _, p in net.predict("photo.png")]
    assert command(["evaluate", "runs/shapes", "--views", "10", "--json", "--backend", "numpy"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = net.evaluate(views=10)
    assert (told["top1_error"], told["loss"]) == (found.error(1), pytest.approx(found.loss, rel=1e-12))


def test_mistakes_are_said(net: minialex.TrainedNet) -> None:
    for wrong in (np.zeros((32, 32, 3), np.float32), np.zeros((32, 32, 2), np.uint8), 7):
        with pytest.raises(ConfigurationError, match="expected an image as uint8"):
            net.predict(wrong)
    with pytest.raises(ConfigurationError, match="views = 3; use 1 or 10"):
        net.predict("photo.png", views=3)
    with pytest.raises(ConfigurationError, match="has no layer 'conv9'"):
        net.features("photo.png", layer="conv9")
    with pytest.raises(DataError, match="no such image file"):
        net.predict("nothing.png")
    with pytest.raises(CheckpointError, match="no run folder nowhere"):
        minialex.load("nowhere")
    with pytest.raises(minialex.MinialexError, match="Did you mean 'numpy'"):
        minialex.load("runs/shapes", backend="nunpy")
    assert "numpy backend" in repr(net)


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda net: net.predict([]), "no images"),
        (lambda net: net.features([]), "no images"),
        (lambda net: net.probabilities(np.zeros((0, 3, 32, 32), np.uint8)), "no images"),
        (lambda net: net.predict("photo.png", top=-1), "top = -1"),
        (lambda net: net.predict("photo.png", top=0), "top = 0"),
        (lambda net: net.predict("photo.png", views=3), "views = 3; use 1 or 10"),
        (lambda net: net.evaluate(batch_size=0), "batch_size = 0; use 1 or more"),
        (lambda net: net.evaluate(batch_size=-5), "batch_size = -5"),
        (lambda net: net.evaluate(data=minialex.data.load("shapes", size=64, train_images=8, validation_images=8)),
         "'shapes' has images of 64 × 64 pixels, and runs/shapes was trained on 32 × 32"),
        (lambda net: net.predict(np.zeros((2, 3, 32, 32))), "expected an image as uint8"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(there: Path, ask: Any, said: str) -> None:
    net = minialex.load("runs/shapes", backend="numpy")
    with pytest.raises(ConfigurationError) as caught:
        ask(net)
    assert said in str(caught.value)
    assert "--" not in str(caught.value)
