"""Kill a process with SIGKILL at every file event of a checkpoint save, and look at what is left each time.

Run as a script with a scratch folder; prints one line a scenario: its name and its number of kill points. A file
event is a call that opens, writes, syncs, closes, renames or removes; a write is cut twice, before it and halfway.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from minialex.runs import checkpoint
from minialex.storage import atomic

EVENTS = ("open", "close", "fsync", "replace", "rename", "mkdir", "unlink", "rmdir")


def tensors(step: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return the weights of a step."""
    return {"a": np.full((3, 5), step, np.float32), "b": np.arange(step, dtype=np.float64)}


def save(folder: Path, step: int, **options: Any) -> None:
    """Save the checkpoint of a step."""
    checkpoint.save(folder, step, tensors(step), tensors(step + 1), {"step": step}, **options)


class Countdown:
    """Kills this process at its n-th event."""

    def __init__(self, left: int) -> None:
        self.left = left

    def event(self) -> bool:
        """Count one event; True if it is the last."""
        self.left -= 1
        return self.left == 0

    def arm(self) -> None:
        """Wrap every call that changes files."""
        countdown = self

        def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
            def wrapper(*arguments: Any, **options: Any) -> Any:
                if countdown.event():
                    die()
                return call(*arguments, **options)

            return wrapper

        for name in EVENTS:
            setattr(os, name, wrapped(getattr(os, name)))

        class Cut(io.FileIO):
            def write(self, data: Any) -> int:
                if countdown.event():
                    die()
                if countdown.event():
                    super().write(data[: len(data) // 2])
                    die()
                return super().write(data)

            def close(self) -> None:
                if not self.closed and countdown.event():
                    die()
                super().close()

        def opened(path: Path, mode: str, buffering: int) -> Cut:
            assert buffering == 0
            if countdown.event():
                die()
            return Cut(path, mode)

        atomic.open = opened  # type: ignore[attr-defined]


def die() -> None:
    """End as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def check(folder: Path, allowed: set[int], new: int, best: int | None) -> None:
    """Check what a kill left, then that the same save succeeds and leaves nothing else behind."""
    warnings: list[str] = []
    found = checkpoint.latest(folder, warnings.append)
    step = found.step if found else 0
    assert step in allowed, f"resumed from {step}, not {allowed}"
    assert not warnings, warnings
    if found:
        for name, tensor in tensors(step).items():
            np.testing.assert_array_equal(found.weights[name], tensor)
        for name, tensor in tensors(step + 1).items():
            np.testing.assert_array_equal(found.momentum[name], tensor)
        assert found.state == {"step": step}
    for path in folder.glob("step-*"):
        checkpoint.load(path)  # whatever has a final name is whole
    for pointer in ("latest", "best"):
        if (folder / pointer).exists():
            assert (folder / (folder / pointer).read_text().strip()).name.startswith("step-")
    if best:
        assert checkpoint.best(folder, warnings.append).step == best
        assert not warnings, warnings
    save(folder, new, keep=2)
    after = checkpoint.latest(folder, warnings.append)
    assert after is not None
    assert (after.step, after.path.name) == (new, f"step-{new:08d}")
    assert (folder / "latest").read_text() == f"step-{new:08d}\n"
    left = sorted(os.listdir(folder))
    assert not [name for name in left if name.startswith(".tmp-") or name.endswith(".replaced")], left


def main(scratch: Path) -> None:
    """Run all scenarios."""

    def nothing(_: Path) -> None:
        pass

    def three(folder: Path) -> None:
        save(folder, 10, best=True)
        save(folder, 20)
        save(folder, 30)

    def killed_before(folder: Path) -> None:
        three(folder)
        shutil.copytree(folder / "step-00000030", folder / "step-00000030.replaced")
        shutil.copytree(folder / "step-00000030", folder / ".tmp-0-step-00000030")
        (folder / ".tmp-0-latest").write_bytes(b"ste")

    only = {
        "first": (nothing, 10, {0, 10}, None),
        "fourth": (three, 40, {30, 40}, 10),
        "same step again": (three, 30, {30}, 10),
        "same step, the only one": (lambda folder: save(folder, 10, best=True), 10, {10}, 10),
        "after a kill": (killed_before, 30, {30}, 10),
    }
    for name, (prepare, new, allowed, best) in only.items():
        for number in itertools.count(1):
            folder = scratch / "checkpoints"
            shutil.rmtree(folder, ignore_errors=True)
            prepare(folder)
            child = os.fork()
            if child == 0:
                Countdown(number).arm()
                save(folder, new, keep=2)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            if os.WIFEXITED(status):
                assert os.WEXITSTATUS(status) == 0, status
                break
            assert os.WTERMSIG(status) == signal.SIGKILL
            try:
                check(folder, allowed, new, best)
            except BaseException:
                print(f"{name}: killed at event {number}, left: {sorted(os.listdir(folder))}", file=sys.stderr)
                raise
        print(f"{name}\t{number - 1}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
