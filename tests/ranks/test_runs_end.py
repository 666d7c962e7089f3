"""Training by two ranks whose end is not their own: kills, hangs, full disks, broken images, signals; and resumed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from minialex.data.store.prepare import prepare
from minialex.runs import checkpoint

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc, kills with SIGKILL")

if TYPE_CHECKING:
    from trainings import Training

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

OPTIONS = [
    "--backend", "numpy", "--recipe", "small", "--train-images", "32", "--validation-images", "10",
    "--batch-size", "16", "--epochs", "200", "--checkpoint-steps", "1",
]  # fmt: skip


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Training]]:
    """Give what starts a training by two ranks; it is ended whatever happens."""
    pytest.importorskip("mpi4py", reason="no mpi4py")
    monkeypatch.syspath_prepend(HERE)
    from trainings import Training

    started: list[Training] = []

    def begin(*words: object, terminal: int | None = None) -> Training:
        started.append(Training(tmp_path, 2, *words, terminal=terminal))
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
    assert re.fullmatch(r"the last checkpoint is run/checkpoints/step-\d+; continue with:", last)
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
    assert re.search(
        r"stopped by SIGTERM after step \d+; continue with:\n  minialex train --ranks 2 --resume run\n", out
    )


def test_a_folder_that_holds_something_else_is_no_lost_rank(train: Callable[..., Training], tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years")
    one = train(*OPTIONS, "--out", "run")
    code, _, err = one.end()
    assert code == 2
    assert re.fullmatch(r"error: rank 0 \(pid \d+ on \S+\): 'run' is not empty and not a run .*\n", err), err


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


def test_kills_at_random_moments(tmp_path: Path) -> None:
    """Two of them; `python tests/ranks/kills.py FOLDER 50` is for a longer evening."""
    pytest.importorskip("mpi4py", reason="no mpi4py")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends")))}
    words = [sys.executable, ROOT / "tests" / "ranks" / "kills.py", tmp_path, "2", "7"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same bits") >= 1


def test_training_goes_on_when_nobody_reads_its_output(train: Callable[..., Training]) -> None:
    one = train(*(word if word != "200" else "4" for word in OPTIONS), "--out", "run")
    assert one.process.stdout is not None
    one.process.stdout.readline()
    one.process.stdout.close()
    one.process.stdout = None
    code, _, err = one.end()
    assert code == 0
    assert re.fullmatch(r"warning: nothing can be shown any more .*; work continues without it\n", err), err
    assert (one.run / "report.html").is_file()


def test_a_rank_that_is_interrupted_alone_ends_the_others(train: Callable[..., Training]) -> None:
    one = train(*OPTIONS, "--rank-timeout", "8", "--out", "run")
    one.wait_for(2)
    ranks = one.ranks()
    os.kill(ranks[1], signal.SIGSTOP)
    for _ in range(2):  # the second Ctrl-C ends a process at once
        time.sleep(0.3)
        os.kill(ranks[0], signal.SIGINT)
    os.kill(ranks[1], signal.SIGCONT)
    code, _, err = one.end()
    assert code == 130, err
    assert re.match(r"error: rank 0 \(pid \d+ on \S+\): interrupted\n", err), err


def test_ctrl_c_in_a_terminal_stops_after_a_step(train: Callable[..., Training]) -> None:
    here, there = pty.openpty()
    one = train(*OPTIONS, "--out", "run", terminal=there)
    os.close(there)
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # nobody has the other side any more
            while piece := os.read(here, 1 << 16):
                shown.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        one.wait_for(2)
        os.write(here, b"\x03")
        code, _, _ = one.end(20)
    finally:
        for pid in one.left():
            os.kill(pid, signal.SIGKILL)
        reader.join()
        os.close(here)
    assert code == 130
    assert b"stopped by Ctrl-C after step " in b"".join(shown)
    assert b"minialex train --ranks 2 --resume run" in b"".join(shown)
