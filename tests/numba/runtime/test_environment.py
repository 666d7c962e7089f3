"""Variables of the environment that Numba cannot use are named in one line, by every command that would compute."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "value"),
    [("NUMBA_NUM_THREADS", "0"), ("NUMBA_NUM_THREADS", "many"), ("NUMBA_OPT", "9x"), ("NUMBA_DISABLE_JIT", "1")],
)
def test_a_variable_is_named(tmp_path: Path, name: str, value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from minialex.cli.app import main; main()", "train", "--epochs", "1", "--train-images",
         "16", "--validation-images", "8", "--batch-size", "8", "--out", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, env={**os.environ, name: value}, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: the environment variable {name}={value} cannot be used")
