"""The commands on pretend devices: which precision they compute in, and what they say to wrong input."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from minialex.backend import registry
from minialex.cli import app as cli
from minialex.runs.run_folder import read_metrics

TINY = [
    *("train", "--backend", "cuda", "--recipe", "shapes", "--train-images", "128", "--validation-images", "32"),
    *("--batch-size", "16", "--epochs", "1", "--steps", "1", "--kernels", "4,4,4,4,4", "--features", "8,8"),
]

Gpus = Callable[..., list[Any]]


@pytest.fixture
def run(pretend_gpus: Gpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, list[Any]]:
    """A run that was trained in bfloat16, and the list of backends that commands load."""
    loaded = pretend_gpus()
    assert cli.run([*TINY, "--precision", "bfloat16", "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert [backend.precision for backend in loaded] == ["bfloat16"]
    loaded.clear()
    return tmp_path / "run", loaded


def test_networks_are_asked_in_the_precision_of_their_recipe(
    run: tuple[Path, list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, loaded = run
    image, picture = tmp_path / "image.png", tmp_path / "predictions.png"
    Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(image)
    predict = ["predict", str(folder), str(image), "--picture", str(picture), "--backend", "cuda"]
    for command in (["evaluate", str(folder), "--backend", "cuda"], predict):
        assert cli.run(command) == 0, capsys.readouterr().err
        assert cli.run([*command, "--precision", "tf32"]) == 0
    assert [backend.precision for backend in loaded] == ["bfloat16", "tf32"] * 2
    assert cli.run(["evaluate", str(folder), "--backend", "cuda", "--precision", "half"]) == 2
    assert "precision" in capsys.readouterr().err


def test_evaluation_agrees_with_the_end_of_training(
    run: tuple[Path, list[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """The same weights in the same precision: the same loss as training wrote down, to the last bit."""
    import json

    folder, _ = run
    told = [record["loss"] for record in read_metrics(folder / "metrics.jsonl") if record["kind"] == "validation"]
    losses = {}
    for precision in ("bfloat16", "float32"):
        command = ["evaluate", str(folder), "--backend", "cuda", "--precision", precision, "--json"]
        assert cli.run([*command, "--batch-size", "16"]) == 0
        losses[precision] = json.loads(capsys.readouterr().out)["loss"]
    assert losses["bfloat16"] == pytest.approx(told[-1], rel=1e-6)
    assert losses["float32"] != losses["bfloat16"]


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_backend_without_a_choice_says_so(
    run: tuple[Path, list[Any]], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(run[0]), "--backend", name]
    assert cli.run(command) == 2
    says = f"the {name} backend has no --precision; it computes in float32: give --precision float32"
    assert says in capsys.readouterr().err
    assert cli.run([*command, "--precision", "float32"]) == 0


@pytest.mark.parametrize(
    ("devices", "says"),
    [
        ("0,7", "backend 'cuda' has no device '7'; it has cuda:0, cuda:1"),
        ("cuda:2", r"has no device 'cuda:2'; it has cuda:0, cuda:1\. Did you mean 'cuda:[01]'"),
        ("0,1,0", "devices names 3 devices for 2 columns; give one or 2"),
        ("gpu", "has no device 'gpu'"),
        ("0,", "has no device ''"),
    ],
)
def test_devices_that_do_not_exist(
    pretend_gpus: Gpus, devices: str, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pretend_gpus()
    assert registry.load("cuda").devices == ("cuda:0", "cuda:1")
    assert cli.run([*TINY, f"--devices={devices}", "--out", str(tmp_path / "run")]) == 2
    assert re.search(says, capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
