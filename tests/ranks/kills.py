"""Kill ranks, or their launcher, at random moments; go on with another number of ranks; compare the last weights.

    python tests/ranks/kills.py FOLDER [KILLS [SEED]] [--record FILE]

Every run of a tiny network must end with the bits of one that was never killed, whoever computed what; after each kill
no process may be left, and the newest checkpoint must be whole. Prints a line a kill; at the end, with --record, it
writes what was done and found.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import platform
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
from trainings import Training

from minialex import __version__
from minialex.runs import checkpoint

OPTIONS = (
    "--backend", "numpy", "--recipe", "small", "--kernels", "[4, 8, 8, 8, 8]", "--features", "[16, 16]",
    "--train-images", "48", "--validation-images", "10", "--batch-size", "16", "--epochs", "6",
    "--checkpoint-steps", "1", "--shards", "4", "--rank-timeout", "30",
)  # fmt: skip
RANKS = 1, 2, 4
PATIENCE = 1800
"""Seconds for a training: it may run beside much else, at a low priority."""


def bits(folder: Path) -> tuple[int, bytes]:
    """The last step of a run, and its weights and momentum; nothing that it has is broken."""
    warnings: list[str] = []
    found = checkpoint.latest(folder / "run" / "checkpoints", warnings.append)
    assert not warnings, warnings
    assert found is not None
    arrays = [*sorted(found.weights.items()), *sorted(found.momentum.items())]
    return found.step, b"".join(array.tobytes() for _, array in arrays)


def begin(folder: Path, ranks: int) -> Training:
    """Begin a run, or go on with it."""
    there = (folder / "run" / "recipe.toml").is_file()
    return Training(folder, ranks, *(("--resume", "run") if there else (*OPTIONS, "--out", "run")))


def victim(training: Training, choose: random.Random) -> int | None:
    """Whom to kill: a rank, or the process that was started."""
    there = list(training.ranks().values())
    return choose.choice([*there, *there, training.process.pid]) if there else None


def moment(training: Training, choose: random.Random, took: float) -> None:
    """Wait for a random moment: in the beginning, or somewhere within the steps."""
    if choose.random() < 0.3:
        time.sleep(choose.uniform(0, took))
        return
    checkpoints = training.run / "checkpoints"
    target = max((int(path.name[5:]) for path in checkpoints.glob("step-????????")), default=0) + choose.randint(1, 6)
    while training.process.poll() is None and not any(
        int(path.name[5:]) >= target for path in checkpoints.glob("step-????????")
    ):
        time.sleep(0.01)
    time.sleep(choose.uniform(0, 0.2))


def main(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill so often; returns what was done and found."""
    choose = random.Random(seed)
    trials: list[dict[str, Any]] = []
    ranks = 0
    whole = folder / "whole"
    whole.mkdir()
    began = time.monotonic()
    code, _, err = begin(whole, 1).end(PATIENCE)
    assert code == 0, err
    took = time.monotonic() - began
    wanted = bits(whole)
    again, done, number = folder / "again", 0, 0
    again.mkdir()
    while done < kills or (again / "run").exists():
        ranks = choose.choice([number for number in RANKS if number != ranks])  # always another than before
        killed = ""
        training = begin(again, ranks)
        if done < kills:
            moment(training, choose, took)
            pid = victim(training, choose) if ranks > 1 else training.process.pid
            if training.process.poll() is None and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    done += 1
                    killed = "process" if ranks == 1 else "launcher" if pid == training.process.pid else "rank"
        code, _, err = training.end(PATIENCE)
        assert code in (0, 6, -signal.SIGKILL), (code, err)
        step = bits(again)[0] if (again / "run" / "checkpoints").is_dir() else 0
        print(f"kill {done}: {ranks} ranks ended with {code} after step {step}", flush=True)
        trials.append({"ranks": ranks, "killed": killed, "code": code, "step": step})
        if code == 0:
            number += 1
            assert bits(again) == wanted, "other bits"
            shutil.rmtree(again / "run")
            print(f"run {number}: the same bits", flush=True)
    return {
        "command": f"python tests/ranks/kills.py FOLDER {kills} {seed}", "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        "versions": {"minialex": __version__, "python": platform.python_version(), "numpy": np.__version__, **_mpi()},
        "minutes": round((time.monotonic() - began) / 60, 1), "kills": done, "runs_completed": number,
        "resumed_with": sorted({trial["ranks"] for trial in trials}), "last_step": wanted[0],
        "sha256_of_weights_and_momentum": hashlib.sha256(wanted[1]).hexdigest(), "all_runs_have_this_sha256": True,
        "processes_left": 0, "damaged_checkpoints": 0, "trials": trials,
    }  # fmt: skip


def _mpi() -> dict[str, str]:
    import mpi4py

    mpi4py.rc.initialize = False
    from mpi4py import MPI

    library = MPI.Get_library_version().split("\n")[0].replace("\t", " ").strip(" \0")
    return {"mpi4py": mpi4py.__version__, "mpi": library}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("seed", type=int, nargs="?", default=0)
    parser.add_argument("--record", type=Path, help="a JSON file")
    options = parser.parse_args()
    found = main(options.folder, options.kills, options.seed)
    if options.record is not None:
        options.record.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
