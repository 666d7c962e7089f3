"""What doctor says of several processes; two of them are started where MPI is."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minialex.doctor import ranks
from minialex.ranks import launch


def test_without_mpi4py_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (check,) = ranks.checks(False)
    assert (check.verdict, check.mend) == ("problem", 'pip install "minialex[mpi]"')


def test_two_ranks_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mpi4py", reason="no mpi4py")
    monkeypatch.setattr(ranks, "NUMBERS", 100_003)
    found = {check.topic: check for check in ranks.checks(True)}
    assert [check.verdict for check in found.values()] == ["ok"] * 3
    assert re.fullmatch(r"sum correctly; a sum of 400 kB: .*B/s from each", found["two ranks"].found)


@pytest.mark.parametrize(
    ("script", "said"), [("echo no launch >&2; exit 7", "no launch"), ("echo nonsense", "Expecting")]
)
def test_an_mpiexec_that_fails(script: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py", reason="no mpi4py")
    broken = tmp_path / "mpiexec"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setattr(launch, "find_mpiexec", lambda: (str(broken), "MPICH"))
    last = ranks.checks(False)[-1]
    assert (last.topic, last.verdict) == ("two ranks", "problem")
    assert said in last.found
    assert last.mend.endswith("-m minialex doctor")


def test_under_mpiexec_every_process_is_listed() -> None:
    pytest.importorskip("mpi4py", reason="no mpi4py")
    mpiexec, vendor = launch.find_mpiexec()
    words = launch.command(mpiexec, vendor, 2, None, ["minialex", "doctor", "--backend", "numpy", "--quick"])
    done = subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "100"},
    )
    assert done.stdout.count("numpy: cpu:0, cpu:1") == 2
    assert f"2 ranks, {'mpich' if vendor == 'MPICH' else 'Open MPI'}" in done.stdout
    assert sys.executable not in done.stderr
