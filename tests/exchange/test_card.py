"""Model cards: their facts, and their programs, which are run as they stand and say what `minialex predict` says."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import minialex
from minialex.cli.app import run
from minialex.exchange import card, pytorch_module
from minialex.recipe.toml import load
from minialex.runs import weights_file
from minialex.runs.weights_file import Weights

from .conftest import KINDS, SMALL, network

RECIPES = {
    "a mean image": ("small", KINDS["small"][1]),
    "channel means, odd border": ("torchvision", {**SMALL, "image_size": 73}),
    "scaled": ("small", {**KINDS["small"][1], "mean": "channel", "pixel_scale": 0.0173}),
}


@pytest.fixture(params=RECIPES)
def weights(request: pytest.FixtureRequest) -> Weights:
    name, changes = RECIPES[request.param]
    return network(load(name).replace(**changes))


def photo(kind: str) -> None:
    """An image that is neither square nor smooth, upright only by its tag, and large enough to be decoded smaller."""
    random = np.random.default_rng(3)
    coarse = Image.fromarray(random.integers(0, 256, (9, 12, 3), np.uint8)).resize((811, 640))
    exif = Image.Exif()
    exif[0x0112] = 6
    coarse.save("photo.png", "JPEG" if kind == "JPEG" else "PNG", exif=exif)


def program(page: Path) -> str:
    (found,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


def run_program(page: Path) -> dict[str, Any]:
    """What a card's program leaves behind."""
    made: dict[str, Any] = {}
    exec(compile(program(page), str(page), "exec"), made)
    return made


def exported(weights: Weights, name: str, capsys: pytest.CaptureFixture[str]) -> tuple[Path, NDArray[Any]]:
    """A file's card, and what `predict` says of the photo."""
    weights_file.write(Path("w.safetensors"), weights)
    if name != "w.safetensors":
        assert run(["export", "w.safetensors", name]) == 0
    else:
        Path(f"{name}.md").write_text(card.card(weights, Path(name)), encoding="utf-8")
    return Path(f"{name}.md"), minialex.load("w.safetensors").probabilities("photo.png")


@pytest.mark.parametrize(
    ("name", "kind"),
    [("net.onnx", "JPEG"), ("w.safetensors", "PNG"), pytest.param("net.pt", "PNG", marks=pytest.mark.peers)],
)
def test_the_program_says_what_predict_says(
    weights: Weights, name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    if name == "net.pt":
        request.getfixturevalue("torch")
    if name == "net.onnx" and not os.environ.get("CI"):
        pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "net", raising=False)
    monkeypatch.setattr(minialex, "load", partial(minialex.load, backend="numpy"))  # any backend does
    photo(kind)
    page, expected = exported(weights, name, capsys)
    made = run_program(page)
    np.testing.assert_allclose(made["probabilities"], expected, rtol=0, atol=5e-5)
    assert expected.max() - expected.min() > 0.01  # it says something
    if name == "w.safetensors":
        net = minialex.load(name)
        pixels = net.pixels("photo.png").astype(np.float32)
        first, crop = (weights.recipe.image_size - weights.recipe.crop) // 2, weights.recipe.crop
        mean = weights.statistics.mean[:, first : first + crop, first : first + crop]
        if weights.recipe.mean == "channel":
            mean = weights.statistics.mean.mean(axis=(1, 2), keepdims=True)
        seen = (pixels[:, :, first : first + crop, first : first + crop] - mean) * weights.recipe.pixel_scale
        np.testing.assert_allclose(made["first_input"], seen, rtol=1e-6, atol=1e-4)
    sys.modules.pop("net", None)


def test_what_comes_from_outside_stays_in_its_cell(tmp_path: Path) -> None:
    weights = network(load("small").replace(**KINDS["small"][1]))
    odd = "a|b\n| c | <script>alert(1)</script>"
    names = (odd, *(f"{n}" for n in range(weights.recipe.classes - 1)))
    weights = dataclasses.replace(weights, data=odd, class_names=names, origin={"from": odd})
    out = tmp_path / "it's a $(net) '''.safetensors"
    weights_file.write(out, weights)
    text = card.card(weights, out)
    assert "<script" not in text
    (row,) = [line for line in text.splitlines() if line.startswith("| trained on")]
    assert len(re.findall(r"(?<!\\)\|", row)) == 3
    (tmp_path / "x.md").write_text(text, encoding="utf-8")
    assert repr(out.name) in program(tmp_path / "x.md")
    compile(program(tmp_path / "x.md"), "x", "exec")


def test_a_network_of_one_s_own_is_not_called_alexnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(
        "from minialex.network.layers import Conv2d, Flatten, Linear\nfrom minialex.network.network import Network\n"
        'net = Network("mine", (3, 28, 28), (Conv2d("conv1", 4, 5, stride=4), Flatten("flat"), Linear("fc2", 7)))\n'
    )
    recipe = load("small").replace(model=f"{tmp_path}/mine.py:net", classes=7, columns=1)
    weights = network(recipe)
    out = tmp_path / "net.pt"
    source = pytorch_module.write(out, weights)
    text = card.card(weights, out, source.stem).split("## Recipe")[0]
    assert f"| network | a user's own network, {tmp_path}/mine.py:net |" in text
    assert "alexnet" not in text.lower()
    assert "alexnet" not in source.read_text(encoding="utf-8").lower()
