"""`minialex summary` of networks of one's own, and what is said where they are not found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from minialex.cli.app import run

MINE = """
from minialex.network.layers import Conv2d, Flatten, Linear
from minialex.network.network import Network
net = Network("mine", (3, 32, 32), (
    Conv2d("conv1", 8, 5, stride=4), Flatten("flatten"), Linear("fc2", 7, sees="all", on="first")))
def maker(fields):
    return Network("made", (3, fields.crop, fields.crop), (
        Conv2d("conv1", 8, 5), Flatten("flatten"), Linear("fc2", fields.classes, sees="all", on="first")))
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_summary.py").write_text(MINE)


@pytest.mark.parametrize("way", ["--network", "--model"])
def test_a_network_of_ones_own_is_shown_as_it_is(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["summary", way, "own_summary.py:net"]) == 0
    assert "7 × 392" in capsys.readouterr().out, "its own seven outputs, its own 32 × 32 pixels, no --crop"
    assert run(["summary", way, "own_summary.py:net", "--classes", "5", "--columns", "1"]) == 0
    assert "5 × 392" in capsys.readouterr().out
    assert run(["summary", way, "own_summary.py:maker"]) == 0
    assert "10 × " in capsys.readouterr().out


def test_a_module_that_is_not_here_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run(["summary", "--network", "own_summary_nowhere:net"]) == 2
    error = capsys.readouterr().err
    assert f"no module of this name in {tmp_path / 'elsewhere'}" in error
    assert "FOLDER/own_summary_nowhere.py" in error
    (tmp_path / "needs.py").write_text("import nothing_like_it")
    assert run(["summary", "--network", f"{tmp_path / 'needs.py'}:net"]) == 2
    assert "which needs 'nothing_like_it', and that is not installed" in capsys.readouterr().err
