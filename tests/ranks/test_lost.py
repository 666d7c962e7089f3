"""Ranks that die, hang, fail or are only busy, and signals to all of them; no process is ever left (see `start`)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

Start = Callable[..., subprocess.Popen[str]]
Begun = Callable[[int], list[int]]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc, kills with SIGKILL")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_is_named(start: Start, rank: int) -> None:
    process = start(2, "tiny_ranks", "kill", 20, MINIALEX_TEST_RANK=str(rank))
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert re.fullmatch(rf"error: rank {rank} \(pid \d+ on \S+\) was killed by SIGKILL\n", err), err
    assert "done" not in out
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("rank", [0, 2])
def test_a_rank_that_hangs_is_named(start: Start, rank: int) -> None:
    process = start(3, "tiny_ranks", "stop", 2, MINIALEX_TEST_RANK=str(rank))
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert re.fullmatch(rf"error: rank {rank} \(pid \d+ on \S+\) does not answer for 2 s\n", err), err
    assert "done" not in out


def test_a_rank_that_fails_says_why(start: Start) -> None:
    process = start(2, "tiny_ranks", "raise", 20)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert re.fullmatch(r"error: rank 1 \(pid \d+ on \S+\): the image is broken\n", err), err


def test_a_rank_that_is_busy_is_waited_for(start: Start) -> None:
    process = start(2, "tiny_ranks", "busy", 2)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n")
    lines = err.splitlines()
    assert lines
    for line in lines:
        assert re.fullmatch(r"warning: waiting \d s for rank 1 \(pid \d+ on \S+\): reading images", line), err


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [(signal.SIGTERM, "SIGTERM", 75), (signal.SIGUSR1, "SIGUSR1", 75), (signal.SIGINT, "SIGINT", 130)],
)
def test_a_signal_to_the_launcher_reaches_all(start: Start, begun: Begun, number: int, name: str, code: int) -> None:
    process = start(2, "tiny_ranks", "signal", 20)
    begun(2)
    time.sleep(0.3)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert re.search(rf"(?m)^saved at step \d+ after {name}\n\Z", out), out  # MPICH says that it sends Ctrl-C


def test_a_signal_to_one_rank_stops_all(start: Start, begun: Begun) -> None:
    process = start(2, "tiny_ranks", "signal", 20)
    _, one = begun(2)
    time.sleep(0.3)
    os.kill(one, signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 75
    assert out.startswith("saved at step ")


def test_ranks_go_with_a_launcher_that_is_killed(start: Start, begun: Begun, tmp_path: Path) -> None:
    process = start(2, "tiny_ranks", "signal", 20)
    ranks = begun(2)
    time.sleep(0.3)
    process.kill()
    process.communicate(timeout=60)
    until = time.monotonic() + 30
    while any(map(psutil.pid_exists, ranks)):
        assert time.monotonic() < until
        time.sleep(0.05)
    saved = (tmp_path / "saved").read_text()  # what they say reaches nobody: the launcher passed it on
    assert re.fullmatch(r"saved at step \d+ after SIGTERM", saved), "they are asked to save"


def test_ranks_go_with_an_mpiexec_that_is_killed(start: Start, begun: Begun) -> None:
    process = start(2, "tiny_ranks", "signal", 20)
    begun(2)
    (mpiexec,) = psutil.Process(process.pid).children()
    mpiexec.kill()
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (6, "error: mpiexec was killed by SIGKILL\n")
