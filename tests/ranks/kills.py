"""Kill ranks, or their launcher, at random moments; go on with another number of ranks; compare the last weights.

    python tests/ranks/kills.py FOLDER [KILLS [SEED]]

Every run of a tiny network must end with the bits of one that was never killed, whoever computed what. Prints a line a
kill.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from trainings import Training

from minialex.runs import checkpoint

OPTIONS = (
    "--backend", "numpy", "--recipe", "small", "--kernels", "[4, 8, 8, 8, 8]", "--features", "[16, 16]",
    "--train-images", "48", "--validation-images", "10", "--batch-size", "16", "--epochs", "6",
    "--checkpoint-steps", "1", "--shards", "4", "--rank-timeout", "10",
)  # fmt: skip
RANKS = 1, 2, 4


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


def main(folder: Path, kills: int, seed: int) -> None:
    """Kill so often."""
    choose = random.Random(seed)
    whole = folder / "whole"
    whole.mkdir()
    began = time.monotonic()
    code, _, err = begin(whole, 1).end(300)
    assert code == 0, err
    took = time.monotonic() - began
    wanted = bits(whole)
    again, done, number = folder / "again", 0, 0
    again.mkdir()
    while done < kills or (again / "run").exists():
        ranks = choose.choice(RANKS)
        training = begin(again, ranks)
        if done < kills:
            moment(training, choose, took)
            pid = victim(training, choose) if ranks > 1 else training.process.pid
            if training.process.poll() is None and pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    done += 1
        code, _, err = training.end(300)
        assert code in (0, 6, -signal.SIGKILL), (code, err)
        step = bits(again)[0] if (again / "run" / "checkpoints").is_dir() else 0
        print(f"kill {done}: {ranks} ranks ended with {code} after step {step}", flush=True)
        if code == 0:
            number += 1
            assert bits(again) == wanted, "other bits"
            shutil.rmtree(again / "run")
            print(f"run {number}: the same bits", flush=True)


if __name__ == "__main__":
    times, first = (*map(int, sys.argv[2:]), *(50, 0)[len(sys.argv) - 2 :])
    main(Path(sys.argv[1]), times, first)
