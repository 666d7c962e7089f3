"""The script for SLURM, with programs of the same names in the place of a cluster's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "many-machines.sbatch"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a script of bash")


def submit(folder: Path, srun: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script where srun is this, and scontrol writes down how it was called."""
    for name, text in (("srun", srun), ("scontrol", f'echo "$@" >> {folder}/scontrol.txt')):
        (folder / name).write_text(f"#!/bin/bash\n{text}\n")
        (folder / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "DATA": "shapes",
        "PYTHON": sys.executable, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "backends"))), **more,
    }  # fmt: skip
    return subprocess.run(
        ["bash", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        check=False,
    )  # fmt: skip


def test_it_trains_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py", reason="no mpi4py")
    from minialex.ranks import launch

    mpiexec, _ = launch.find_mpiexec()
    srun = f'while [[ "$1" == --* ]]; do shift; done\nexec {mpiexec} -n 2 "$@"'
    options = "--backend numpy --train-images 16 --validation-images 4 --batch-size 16 --epochs 1"
    done = submit(tmp_path, srun, OPTIONS=options, OPENBLAS_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert "report       runs/cluster/report.html" in done.stdout
    again = submit(tmp_path, srun, OPENBLAS_NUM_THREADS="1")
    assert again.returncode == 0, again.stderr
    assert "report       runs/cluster/report.html" in again.stdout
    assert not (tmp_path / "scontrol.txt").exists()


@pytest.mark.parametrize(("code", "queued"), [(75, True), (6, False), (0, False)])
def test_only_what_was_stopped_is_queued_again(tmp_path: Path, code: int, queued: bool) -> None:
    done = submit(tmp_path, f'echo "$@"; exit {code}', RUN="some/where")
    assert done.returncode == code
    assert done.stdout.startswith("--mpi=pmi2 --kill-on-bad-exit=1 ")
    assert "-m minialex train --data shapes --out some/where --backend cuda" in done.stdout
    assert (tmp_path / "scontrol.txt").exists() == queued
    if queued:
        assert (tmp_path / "scontrol.txt").read_text() == "requeue 7\n"
