"""Weights files: what is written is read, from a run, a checkpoint or a file; damage and lies are named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.data.statistics import Statistics
from minialex.errors import CheckpointError
from minialex.network import variants
from minialex.network.parameters import initial_parameters, join_columns
from minialex.recipe.toml import load
from minialex.runs import weights_file as weights
from minialex.runs.weights_file import Weights
from minialex.storage import safetensors

RECIPE = load("shapes").replace(kernels=(4, 4, 4, 4, 4), features=(8, 8), classes=3)


def made() -> Weights:
    tensors = join_columns(initial_parameters(variants.build(RECIPE), RECIPE.columns, 1))
    mean = np.random.default_rng(0).uniform(0, 255, (3, 32, 32)).astype(np.float32)
    return Weights(
        RECIPE,
        ("cat", "dog", "ä–ö"),
        Statistics(mean, np.diag([3.0, 2.0, 1.0])),
        tensors,
        "pets",
        {"from": "x"},
        ("Felis catus", "Canis", "–"),
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    before = made()
    weights.write(tmp_path / "w.safetensors", before)
    after = weights.find(tmp_path / "w.safetensors")
    for name in ("recipe", "class_names", "words", "titles", "data"):
        assert getattr(after, name) == getattr(before, name)
    assert after.titles[0] == "Felis catus"
    assert after.origin["from"] == "x"
    assert after.digest() == before.digest()
    np.testing.assert_array_equal(after.statistics.mean, before.statistics.mean)
    np.testing.assert_array_equal(after.statistics.covariance, before.statistics.covariance)
    for name, array in before.tensors.items():
        np.testing.assert_array_equal(after.tensors[name], array)
    assert weights.recipe_at(tmp_path / "w.safetensors") == RECIPE
    assert not list(tmp_path.glob(".tmp*"))


def test_others_read_it(tmp_path: Path) -> None:
    from safetensors import safe_open

    weights.write(tmp_path / "w.safetensors", made())
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert set(file.keys()) == {*made().tensors, "data.mean", "data.covariance"}
        assert file.metadata()["format"] == "minialex weights"


def test_the_digest_is_that_of_the_network() -> None:
    one, other = made(), made()
    assert one.digest() == other.digest()
    other.tensors["conv1.bias"][0] += 1e-6  # type: ignore[index]
    assert one.digest() != other.digest()


def rewrite(path: Path, metadata: dict[str, Any] | None = None, tensors: dict[str, Any] | None = None) -> None:
    """The sound file with some metadata or tensors changed, None taking them out."""
    weights.write(path, made())
    known = {**safetensors.read_metadata(path), **(metadata or {})}
    arrays = {**safetensors.read(path), **(tensors or {})}
    safetensors.write(
        path,
        {name: array for name, array in arrays.items() if array is not None},
        {name: text for name, text in known.items() if text is not None},
    )


BIG = RECIPE.replace(kernels=(10**9,) * 5, columns=10**9).to_toml()
LIES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no recipe": ({"recipe": None}, {}, "metadata of"),
    "another format": ({"format": "pt"}, {}, "minialex import"),
    "a later version": ({"version": "2"}, {}, "update minialex"),
    "an unknown field": ({"recipe": "[network]\nnorm_kk = 1"}, {}, "no field 'norm_kk'"),
    "no TOML": ({"recipe": "= 3"}, {}, "is not valid TOML"),
    "a value out of limits": ({"recipe": "[images]\nimage_size = -1"}, {}, "image_size"),
    "columns without end": ({"recipe": BIG}, {}, "4 kernels of conv1 cannot be divided into 1000000000 columns"),
    "another width": ({"recipe": RECIPE.replace(features=(8, 16)).to_toml()}, {}, "'fc7.weight' has shape (8, 8)"),
    "a network that does not fit": ({"recipe": RECIPE.replace(crop=2).to_toml()}, {}, "makes no network"),
    "class names that are none": ({"class_names": "{"}, {}, "metadata of"),
    "class names of numbers": ({"class_names": "[1, 2, 3]"}, {}, "metadata of"),
    "class names of nothing": ({"class_names": "null"}, {}, "metadata of"),
    "more class names than classes": ({"class_names": json.dumps(["x"] * 4)}, {}, "names 4 classes"),
    "words for some": ({"words": '["x"]'}, {}, "with words for 1"),
    "words that are none": ({"words": "3"}, {}, "metadata of"),
    "deep class names": ({"class_names": "[" * 100_000}, {}, "metadata of"),
    "an origin that is none": ({"origin": "[]"}, {}, "metadata of"),
    "no mean": ({}, {"data.mean": None}, "'data.mean' is missing"),
    "a small mean": ({}, {"data.mean": np.zeros((3, 8, 8), np.float32)}, "'data.mean' has shape (3, 8, 8)"),
    "a mean that is not finite": ({}, {"data.mean": np.full((3, 32, 32), np.inf, np.float32)}, "not finite"),
    "a missing tensor": ({}, {"conv3.bias": None}, "'conv3.bias' is missing"),
    "an extra tensor": ({}, {"conv9.bias": np.zeros(3, np.float32)}, "'conv9.bias' is not in this network"),
    "a value that is not finite": ({}, {"fc8.bias": np.array([0, np.nan, 0], np.float32)}, "1 of 3 values"),
    "whole numbers": ({}, {"fc8.bias": np.zeros(3, np.int32)}, "'fc8.bias' is int32"),
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_named(lie: str, tmp_path: Path) -> None:
    metadata, tensors, message = LIES[lie]
    path = tmp_path / "w.safetensors"
    rewrite(path, metadata, tensors)
    with pytest.raises(CheckpointError) as caught:
        weights.find(path)
    assert message in str(caught.value)
    assert "w.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file"),
        (b"\xff" * 100, "not a safetensors file"),
        (struct.pack("<Q", 2**20 + 8) + b" " * (2**20 + 8), "has a header of"),
        (struct.pack("<Q", 8) + b"{}      ", "minialex import"),
        (struct.pack("<Q", 8) + b"[1,2,3] ", "header"),
        (struct.pack("<Q", 10) + b'{"a":{"b":', "header"),
    ],
)
def test_damaged_headers(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        weights.find(tmp_path / "w.safetensors")
    assert message in str(caught.value)


def test_cut_short_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights.write(path, made())
    whole = path.read_bytes()
    for end in [*range(0, 4000, 401), len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            weights.find(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.pth", b"PK\x03\x04", "is a PyTorch file: first `minialex import"),
        ("x.caffemodel", b"\x0a\x05", "first `minialex import"),
        ("x.onnx", b"\x08\x07", "for other programs to run"),
    ],
)
def test_foreign_files_are_sent_to_import(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    for look in (weights.find, weights.recipe_at):
        with pytest.raises(CheckpointError) as caught:
            look(tmp_path / name)
        assert message in str(caught.value)
