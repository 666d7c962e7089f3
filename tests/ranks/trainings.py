"""A training that tests end: `minialex train --ranks` as a process of its own, its ranks, and what it leaves."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import termios
import time
from pathlib import Path

from minialex.runs import checkpoint

ROOT = Path(__file__).resolve().parents[2]


class Training:
    """A training by some ranks, in a folder of its own below another; it may have a terminal of its own."""

    def __init__(self, folder: Path, ranks: int, *words: object, terminal: int | None = None) -> None:
        self.run = folder / "run"
        self.mark = f"MINIALEX_TEST={folder}"
        name, _, value = self.mark.partition("=")
        environment = {
            **os.environ, name: value, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends"))),
        }  # fmt: skip
        command = [sys.executable, "-m", "minialex", "train", "--ranks", str(ranks), *map(str, words)]
        if terminal is None:
            self.process = subprocess.Popen(
                command, text=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        else:
            self.process = subprocess.Popen(
                command, text=True, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, env=environment,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - one system call
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

    def end(self, patience: float = 30) -> tuple[int, str, str]:
        """The exit code and what was said, soon; no process is left, and the newest checkpoint is whole."""
        out, err = self.process.communicate(timeout=patience)
        until = time.monotonic() + 5
        while self.left() and time.monotonic() < until:
            time.sleep(0.1)
        assert self.left() == [], "orphans"
        warnings: list[str] = []
        if list((self.run / "checkpoints").glob("step-????????")):
            assert checkpoint.latest(self.run / "checkpoints", warnings.append) is not None
        assert warnings == []
        return self.process.returncode, out, err
