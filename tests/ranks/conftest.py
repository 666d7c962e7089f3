"""Ranks of tiny programs, started as `minialex train --ranks` starts its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

START = "import sys; from minialex.ranks import launch; sys.exit(launch.start(int(sys.argv[1]), None, sys.argv[2:]))"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give what starts a module as so many ranks; whatever it started is gone at the end, or the test fails."""
    pytest.importorskip("mpi4py", reason="no mpi4py")
    mark = f"MINIALEX_TEST_FOLDER={tmp_path}"
    environment = {
        **os.environ, "MINIALEX_TEST_FOLDER": str(tmp_path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends", HERE))),
    }  # fmt: skip

    def run(ranks: int, *words: object, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", START, str(ranks), *map(str, words)], text=True, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**environment, **more}, cwd=tmp_path,
        )  # fmt: skip

    yield run
    left: list[int] = []
    for _ in range(40):
        left = processes(mark)
        if not left:
            break
        time.sleep(0.1)
    for pid in left:
        os.kill(pid, 9)
    assert not left, "orphans"


def processes(mark: str) -> list[int]:
    """The processes that have this in their environment, this one apart."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


@pytest.fixture
def begun(tmp_path: Path) -> Callable[[int], list[int]]:
    """Give what waits until so many ranks of `tiny_ranks` are at work, and returns their process numbers."""

    def wait(ranks: int) -> list[int]:
        files = [tmp_path / f"{rank}.pid" for rank in range(ranks)]
        until = time.monotonic() + 60
        while not all(path.is_file() and path.read_text() for path in files):
            assert time.monotonic() < until, "the ranks did not begin"
            time.sleep(0.05)
        return [int(path.read_text()) for path in files]

    return wait
