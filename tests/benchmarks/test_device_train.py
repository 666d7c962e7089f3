"""Training for real, as a device is to be shown by it, runs where there is none, and says what went wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
TINY = str(ROOT / "tests" / "cuda" / "pretend" / "tiny.toml")
OPTIONS = ["--backend", "numpy", "--device", "cpu:0", "--precision", "float32", "--recipe", TINY, "--copies", "4"]
OPTIONS += ["--batch-size", "5", "--epochs", "6", "--shapes-step", "1"]
OPTIONS += ["--shapes", f"--data often --recipe {TINY} --batch-size 5 --epochs 6 --views 1"]


def photos(place: Path) -> Path:
    for n in range(5):
        (place / str(n)).mkdir(parents=True)
        Image.fromarray(np.full((30, 40, 3), 50 * n, np.uint8)).save(place / str(n) / f"{n}.png")
    return place


def trained(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / "device_train.py"), *OPTIONS, *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'backends'}"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_it_goes_from_photographs_to_a_prediction_and_to_the_same_bits(tmp_path: Path) -> None:
    done = trained("--photos", str(photos(tmp_path / "photos")), "--kept", str(tmp_path / "kept"))
    assert "stopped by SIGINT at step" in done.stdout
    assert re.search(r"same bits at step-\d+ in momentum.safetensors, weights.safetensors", done.stdout), done.stdout
    assert "top-1 error" in done.stdout
    assert done.returncode == 1  # so few steps teach it little
    assert "of the photographs that it was trained on are wrong, more than 5%" in done.stdout
    assert {"predict.txt", "photos-metrics.jsonl"} <= {path.name for path in (tmp_path / "kept").iterdir()}


@pytest.mark.parametrize("shapes", ["--data missing"])
def test_without_photographs_that_is_said_and_what_fails_is_shown(tmp_path: Path, shapes: str) -> None:
    done = trained("--photos", str(tmp_path / "none"), "--kept", str(tmp_path / "kept"), "--shapes", shapes)
    assert f"no folder {tmp_path / 'none'}: nothing is learned of photographs" in done.stdout
    assert "ended with 3 instead of" in done.stdout or "ended with 2 instead of" in done.stdout, done.stdout
    assert "missing" in done.stdout
    assert done.returncode == 1
