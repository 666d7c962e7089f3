"""Every command and every program of docs/look-inside.md runs, on a small run that stands in for the reader's."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.cli import run as minialex
from minialex.look.cli import app

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "look-inside.md").read_text(encoding="utf-8")
TRAIN = "minialex train --out runs/first --train-images 64 --validation-images 32 --batch-size 16 --epochs 1 --steps 1"
SMALL = " --kernels 8,8,8,8,8 --features 8,8 --recipe shapes"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    return [line.partition("#")[0].strip() for block in blocks("bash") for line in block.splitlines()]


def test_the_page_shows_every_command() -> None:
    shown = {shlex.split(line)[2] for line in commands() if line.startswith("minialex look ")}
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert shown == names
    assert any(line.startswith("minialex features ") for line in commands())


@pytest.mark.slow
def test_all_of_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3)).astype(np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    first, *rest = commands()
    assert first == "minialex train --out runs/first"
    for line in (TRAIN + SMALL, *rest):
        words = shlex.split(line)[1:]
        backend = [] if words[:2] == ["look", "kernels"] else ["--backend", "numpy"]
        assert minialex([*words, *backend]) == 0, (line, capsys.readouterr().err)
    for name in ("kernels", "activations", "occlusion", "translation", "excite", "neighbours"):
        assert (tmp_path / f"{name}.png").exists(), name
    programs = [block.replace("registry.load()", 'registry.load("numpy")') for block in blocks("python")]
    assert len(programs) == 2
    for program in programs:
        exec(compile(program, "look-inside.md", "exec"), {})
