"""Runs with a network of one's own, whose file is edited, or gone, between training and what comes after."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from minialex.cli import app as cli

NETWORK = """
from minialex.network.layers import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Tanh
from minialex.network.network import Network

net = Network("mine", (3, 28, 28), (
    Conv2d("conv1", 4, 5, std=0.1), ReLU("relu1"), MaxPool2d("pool1", 3, stride=2),
    Flatten("flatten"), Linear("fc2", 10, std=0.1, sees="all", on="first"),
))
"""
LEAKY = """
from dataclasses import dataclass
from minialex.network.layers import ArrayLayer, Flatten, Linear
from minialex.network.network import Network

@dataclass(frozen=True)
class Leaky(ArrayLayer):
    def compute(self, xp, x):
        return xp.where(x > 0, x, 0.1 * x)

    def gradient(self, xp, dy, x):
        return xp.where(x > 0, dy, 0.1 * dy)

net = Network("leaky", (3, 28, 28), (
    Flatten("flatten"), Leaky("leaky"), Linear("fc2", 10, std=0.1, sees="all", on="first"),
))
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write mine.py, and forget what was imported of it before, as the next process would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("minialex.api.run.write_report", lambda paths, *_: paths.report.touch())
    path = tmp_path / "mine.py"

    def write(text: str) -> Path:
        path.write_text(text, encoding="utf-8")
        for name, module in list(sys.modules.items()):
            if getattr(module, "__file__", None) == str(path):
                del sys.modules[name]
        linecache.clearcache()
        return path

    return write


def train(*words: str) -> int:
    return cli.run(["train", "--backend", "numpy", "--train-images", "32", "--validation-images", "16", "--batch-size",
                    "16", "--epochs", "1", *words])  # fmt: skip


def test_an_edit_is_told_and_not_gone_on_with(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    write(NETWORK)
    assert train("--network", "mine.py:net", "--out", "run") == 0
    assert cli.run(["export", "run", "weights.safetensors"]) == 0
    capfd.readouterr()

    write("# a comment, and another name\n" + NETWORK.replace("stride=2", "2"))
    assert cli.run(["evaluate", "run"]) == 0
    assert cli.run(["train", "--resume", "run", "--epochs", "2"]) == 0
    assert capfd.readouterr().err == "", "nothing that computes has changed"

    write(NETWORK.replace('ReLU("relu1")', 'Tanh("relu1")'))
    for what in ("run", "weights.safetensors"):
        assert cli.run(["evaluate", what]) == 0
        err = capfd.readouterr().err
        assert err.startswith("warning: the network '")
        assert "mine.py:net' was edited after these weights were trained" in err
        assert err.count("\n") == 1
    assert cli.run(["train", "--resume", "run", "--epochs", "3"]) == 4
    err = capfd.readouterr().err
    assert "mine.py:net' was edited and computes something else" in err
    assert "--init run" in err


def test_arithmetic_of_ones_own_is_compared_by_its_text(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    write(LEAKY)
    assert train("--network", "mine.py:net", "--out", "run") == 0
    write(LEAKY.replace("    def compute", '    """Says more."""\n\n    # and more\n    def compute'))
    capfd.readouterr()
    assert cli.run(["evaluate", "run"]) == 0
    assert "was edited" not in capfd.readouterr().err
    write(LEAKY.replace("0.1 * x", "0.2 * x"))
    assert cli.run(["evaluate", "run"]) == 0
    assert "was edited" in capfd.readouterr().err
    assert cli.run(["train", "--resume", "run", "--epochs", "2"]) == 4


def test_a_file_that_is_gone_is_named_with_one_code(write: Write, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(NETWORK)
    assert train("--network", "mine.py:net", "--out", "run") == 0
    write(NETWORK).unlink()
    for words in (["evaluate", "run"], ["train", "--resume", "run"], ["export", "run", "x.safetensors"]):
        capfd.readouterr()
        assert cli.run(words) == 4, words
        assert f"no such file in {path.parent}" in capfd.readouterr().err
