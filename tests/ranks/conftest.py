"""Groups of ranks: threads of one process, and processes that are started as `train --ranks` starts its own."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.ranks.group import Arrays, FixedOrder, Place

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

START = "import sys; from minialex.ranks import launch; sys.exit(launch.start(int(sys.argv[1]), None, sys.argv[2:]))"


@dataclass
class Table:
    """What the threads put down for each other."""

    size: int
    barrier: threading.Barrier = field(init=False)
    items: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=30)
        self.items = [None] * self.size


class ThreadGroup(FixedOrder):
    engine = "threads"

    def __init__(self, rank: int, table: Table) -> None:
        self.rank, self.size, self.table = rank, table.size, table
        self.places = tuple(Place("here", 0, rank) for rank in range(self.size))

    def _all(self, item: Any) -> list[Any]:
        self.table.items[self.rank] = item
        self.table.barrier.wait()
        found = list(self.table.items)
        self.table.barrier.wait()
        return found

    def all_to_all(self, send: Any, receive: Any) -> None:
        receive[...] = [rows[self.rank] for rows in self._all(send.copy())]

    def all_gather(self, part: Any, whole: Any) -> None:
        whole[...] = self._all(part.copy())

    def exchange(self, item: Any) -> list[Any]:
        return self._all(item)

    def broadcast(self, item: Any, arrays: Mapping[str, Any]) -> tuple[Any, Arrays]:
        found, given = self._all((item, arrays))[0]
        return found, {name: np.array(array) for name, array in given.items()}


def together(size: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """What the work of each rank returns."""
    table = Table(size)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, table))
        except BaseException as error:
            results[rank] = error
            table.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
            raise result
    return results


@pytest.fixture(name="together", scope="session")
def _together() -> Callable[[int, Callable[[ThreadGroup], Any]], list[Any]]:
    return together


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
