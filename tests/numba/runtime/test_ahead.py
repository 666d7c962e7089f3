"""Kernels compiled before they run: all of them, by several processes, and whoever listens hears of it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend.hearing import hearing
from minialex_numba.ops import elementwise
from minialex_numba.runtime import ahead
from minialex_numba.runtime.ahead import Job, compile_all, missing
from minialex_numba.runtime.threads import Launch, Threads

Told = tuple[str, int, int, str]

HELPED = """
import json
from numba.core import event
from minialex.backend.hearing import hearing
from minialex_numba.ops import elementwise
from minialex_numba.runtime import ahead

def rows(dtype):
    return np.zeros(8, dtype), 0, 8

import numpy as np
kernels = elementwise.relu_kernel, elementwise.copy_kernel, elementwise.add_kernel
jobs = [
    ahead.missing(kernel, (8, *(rows(dtype) for _ in range(3 if kernel is elementwise.add_kernel else 2))))
    for kernel in kernels for dtype in ("float32", "float64", "uint8")
]
told = []
with event.install_recorder("numba:compile") as compiled, hearing(lambda *words: told.append(words)):
    ahead.compile_all(jobs, 1)
here = [e.data["dispatcher"] for _, e in compiled.buffer if e.is_start]
print(json.dumps({
    "jobs": len(jobs), "here": sum(kernel in kernels for kernel in here), "told": told,
    "left": sum(not ahead._is_on_disk(kernel, kinds) for kernel, kinds in jobs),
}))
"""


def test_a_helper_compiles_for_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    child = subprocess.run([sys.executable, "-c", HELPED], capture_output=True, text=True, timeout=300, check=False)
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout)
    assert found["jobs"] == 9
    assert found["left"] == 0, "kernels that are not on disk"
    assert found["here"] < 9, "the helper has compiled none"
    done = [words[1] for words in found["told"]]
    assert done == sorted(done)
    assert found["told"][0] == ["compiling kernels", 0, 9, "kernels"]
    assert found["told"][-1] == ["compiling kernels", 9, 9, "kernels"]


@pytest.fixture
def jobs() -> list[Job]:
    """More than enough for a helper, of kernels that are compiled already."""
    rows = np.zeros(4, np.float32), 0, 4
    if job := missing(elementwise.copy_kernel, (4, rows, rows)):
        job[0].compile(job[1])
    kinds = tuple(elementwise.copy_kernel.typeof_pyval(x) for x in (0, 0, 0, 4, rows, rows))
    return [(elementwise.copy_kernel, kinds)] * (2 * ahead.FEW)


@pytest.mark.parametrize("collects", [True, False])
def test_garbage_is_collected_again_after_compiling(jobs: list[Job], collects: bool) -> None:
    seen: list[bool] = []
    (gc.enable if collects else gc.disable)()
    try:
        with hearing(lambda *_: seen.append(gc.isenabled())):
            compile_all(jobs, 0)
        assert seen
        assert not any(seen)
        assert gc.isenabled() is collects
    finally:
        gc.enable()


@pytest.mark.parametrize("program", ["pass", "print(flush=True); raise SystemExit(1)"], ids=["at once", "later"])
def test_what_a_helper_leaves_is_compiled_here(jobs: list[Job], monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    def start() -> Any:
        return subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(ahead, "_start", start)
    told: list[Told] = []
    with hearing(lambda *words: told.append(words)):
        compile_all(jobs, 2)
    assert told[-1] == ("compiling kernels", len(jobs), len(jobs), "kernels")


def test_a_helper_ends_with_a_stop(jobs: list[Job], monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start() -> Any:
        waits = [sys.executable, "-c", "input(); input()"]
        started.append(subprocess.Popen(waits, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    def stop(what: str, done: int, total: int, unit: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ahead, "_start", start)
    with hearing(stop), pytest.raises(KeyboardInterrupt):
        compile_all(jobs, 1)
    assert [process.poll() is not None for process in started] == [True]


def test_a_rehearsal_runs_no_kernel_and_no_other_thread_notices() -> None:
    threads, done = Threads(1), []

    def kernel(worker: int, begin: int, end: int, *arguments: Any) -> None:
        done.append(arguments)

    def work() -> None:
        threads.run(kernel, 3, "rehearsed")
        threads.run(kernel, 0, "nothing to do")
        other = threading.Thread(target=threads.run, args=(kernel, 1, "of another thread"))
        other.start()
        other.join()

    told: list[Any] = []
    threads.rehearse(work, told.append)
    assert told == [Launch(kernel, 3, ("rehearsed",), 1, None)]
    assert done == [("of another thread",)]
    threads.run(kernel, 1, "afterwards")
    assert done[1:] == [("afterwards",)]


def test_a_rehearsal_does_not_warn_of_memory_that_nothing_has_written() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Threads(1).rehearse(lambda: np.array([np.inf, -np.inf]).mean(), lambda launch: None)


@pytest.mark.skipif(os.name != "posix", reason="groups of processes")
def test_a_terminals_ctrl_c_does_not_reach_a_helper() -> None:
    """Not while it imports, either: without it everything would be compiled by one process."""
    helper = ahead._start()
    try:
        assert os.getpgid(helper.pid) == helper.pid
    finally:
        helper.kill()
        helper.communicate()
