"""Real kills: at every file event of a save, and of a whole run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="kills with SIGKILL, forks")


def environment() -> dict[str, str]:
    """Give scripts the minialex of this checkout, and one thread."""
    return {**os.environ, "PYTHONPATH": os.fspath(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def test_a_save_may_be_killed_at_every_file_event(tmp_path: Path) -> None:
    in_memory = Path("/dev/shm")  # a kill loses nothing that was written, synced or not: no need to wait for a disk
    with tempfile.TemporaryDirectory(dir=in_memory if in_memory.is_dir() else tmp_path) as scratch:
        command = [sys.executable, HERE / "killed_saves.py", scratch]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    points = {name: int(count) for name, count in (line.split("\t") for line in done.stdout.splitlines())}
    assert len(points) == 5
    assert min(points.values()) >= 40, points  # fewer would mean that the kills miss the files


@pytest.mark.slow
def test_ckpt_chaos_passes_at_every_kill_point_of_a_run(tmp_path: Path) -> None:
    pytest.importorskip("ckpt_chaos", reason="ckpt-chaos is in the extra 'test'")
    work = tmp_path / "work"
    command = [
        sys.executable,
        "-m",
        "ckpt_chaos",
        "run",
        "--work",
        os.fspath(work),
        "--max-points",
        "1000",
        "--jobs",
        "2",
    ]
    command += ["--modes", "before,torn,unsynced", "--checkpoint-glob", "{out}/checkpoints/step-*"]
    command += ["--step-regex", r"resumed from step (\d+)", "--result-file", "{out}/result.json"]
    command += ["--fail-on", "HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK,CONTROL_FAIL"]
    command += ["--", sys.executable, os.fspath(HERE / "tiny_trainer.py"), "{out}"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    assert done.returncode == 0, report
    points = [json.loads(path.read_text()) for path in work.glob("pt_*/result.json")]
    assert len(points) > 80, report  # 37 file events, each cut in up to three ways
    assert not [point["label"] for point in points if point["drift"]], report
    metrics = (work / "reference" / "out" / "metrics.jsonl").read_text()
    for point in points:
        if "metrics.jsonl [torn]" not in point["label"]:  # half of the synced file cut away: no process does that
            folder = "pt_control" if "point" not in point else f"pt_{point['order']:03d}"
            assert (work / folder / "out" / "metrics.jsonl").read_text() == metrics, point["label"]
