"""Training by two ranks whose end is not their own: kills, hangs, full disks, broken images, signals; and resumed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.data.store.prepare import prepare
from minialex.runs import checkpoint

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc, kills with SIGKILL")

OPTIONS = [
    "--backend", "numpy", "--recipe", "small", "--train-images", "32", "--validation-images", "10",
    "--batch-size", "16", "--epochs", "200", "--checkpoint-steps", "1",
]  # fmt: skip


class Training:
    """A training by two ranks that goes on until something ends it."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.run = folder / "run"
        self.mark = f"MINIALEX_TEST={folder}"
        name, _, value = self.mark.partition("=")
        environment = {
            **os.environ, name: value, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "minialex", "train", "--ranks", "2", *map(str, words)], text=True, cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment,
        )  # fmt: skip

    def wait_for(self, step: int) -> None:
        """Wait until a checkpoint of this step, or a later one, is there."""
        until = time.monotonic() + 120
        while not any(int(path.name[5:]) >= step for path in (self.run / "checkpoints").glob("step-????????")):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < until
            time.sleep(0.05)

    def ranks(self) -> dict[int, int]:
        """The ranks' process numbers."""
        found = {}
        for pid in self.left():
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            except OSError:
                continue
            rank = next((int(name[9:]) for name in environment if name.startswith(b"PMI_RANK=")), None)
            if rank is not None and words[1:3] == [b"-m", b"minialex"]:
                found[rank] = pid
        return found

    def left(self) -> list[int]:
        """All processes of the training that live."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append(int(path.name))
            except OSError:
                pass
        return found

    def end(self) -> tuple[int, str, str]:
        """The exit code and what was said, within 30 s; no process is left, and the newest checkpoint is whole."""
        out, err = self.process.communicate(timeout=30)
        until = time.monotonic() + 5
        while self.left() and time.monotonic() < until:
            time.sleep(0.1)
        assert self.left() == [], "orphans"
        warnings: list[str] = []
        if self.run.exists():
            assert checkpoint.latest(self.run / "checkpoints", warnings.append) is not None
        assert warnings == []
        return self.process.returncode, out, err


@pytest.fixture
def train(tmp_path: Path) -> Iterator[Callable[..., Training]]:
    """Give what starts a training; it is ended whatever happens."""
    pytest.importorskip("mpi4py", reason="no mpi4py")
    started: list[Training] = []

    def begin(*words: object) -> Training:
        started.append(Training(tmp_path, *words))
        return started[-1]

    yield begin
    for one in started:
        for pid in one.left():
            os.kill(pid, signal.SIGKILL)
        one.process.communicate()


def test_killed_stopped_and_resumed(train: Callable[..., Training], tmp_path: Path) -> None:
    one = train(*OPTIONS, "--out", "run")
    one.wait_for(2)
    os.kill(one.ranks()[1], signal.SIGKILL)
    code, _, err = one.end()
    assert code == 6
    first, last, command = err.splitlines()
    assert re.fullmatch(r"error: rank 1 \(pid \d+ on \S+\) was killed by SIGKILL", first)
    assert re.fullmatch(r"the last checkpoint is run/checkpoints/step-\d+; go on with:", last)
    assert command == "  minialex train --ranks 2 --resume run"

    before = checkpoint.latest(one.run / "checkpoints")
    assert before is not None
    two = train("--resume", "run", "--rank-timeout", "4")
    two.wait_for(before.step + 2)
    os.kill(two.ranks()[0], signal.SIGSTOP)
    code, _, err = two.end()
    assert code == 6
    assert re.match(r"error: rank 0 \(pid \d+ on \S+\) does not answer for 4 s\nthe last checkpoint is ", err), err

    three = train("--resume", "run")
    three.wait_for(before.step + 4)
    three.process.send_signal(signal.SIGTERM)
    code, out, err = three.end()
    assert (code, err) == (75, "")
    assert re.search(r"stopped by SIGTERM after step \d+; go on with:\n  minialex train --ranks 2 --resume run\n", out)


def test_a_full_disk_ends_all(train: Callable[..., Training], small_disk: Path) -> None:
    one = train(*OPTIONS, "--out", small_disk / "run")
    code, _, err = one.end()
    assert code == 6
    assert re.match(r"error: .*(No space left|needed)", err), err
    assert len([line for line in err.splitlines() if line.startswith("error")]) == 1


def test_an_image_that_one_rank_cannot_read_ends_all(train: Callable[..., Training], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 16), ("val", 2)):
        for kind in ("cat", "dog"):
            folder = tmp_path / "images" / part / kind
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    prepare(tmp_path / "images", tmp_path / "store", size=32, workers=1)
    images = tmp_path / "store" / "train-00000.images"
    damaged = bytearray(images.read_bytes())
    damaged[len(damaged) // 2] ^= 255
    images.write_bytes(damaged)
    one = train(
        "--backend", "numpy", "--recipe", "small", "--data", "store", "--classes", 0, "--batch-size", 8,
        "--epochs", 3, "--out", "run",
    )  # fmt: skip
    code, _, err = one.end()
    assert code == 6
    assert re.match(r"error: rank [01] \(pid \d+ on \S+\): .*the image at byte 49,152 is damaged", err), err
