"""Somebody who watches a run goes away: the pipe's reader ends, the terminal closes, the log's disk is full."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from minialex.backend.hearing import hearer
from minialex.engine import session
from minialex.errors import DataError
from minialex.runs import checkpoint
from minialex.runs.run_folder import read_metrics
from minialex.training.listening import Listener, Unfailing

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, terminals and signals of POSIX")

TRAIN = [
    *(sys.executable, "-c", "from minialex.cli.app import main; main()", "train", "--backend", "numpy"),
    *("--recipe", "shapes", "--train-images", "96", "--validation-images", "32", "--batch-size", "16"),
    *("--schedule", "constant", "--kernels", "4,4,4,4,4", "--features", "8,8"),
]
SECONDS = 120


def begin(out: Path, epochs: int, **how: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*TRAIN, "--epochs", str(epochs), "--out", str(out)], stderr=subprocess.PIPE, text=True, **how
    )


def ended(process: subprocess.Popen[str], out: Path, epochs: int, said: int = 1) -> None:
    """It went on to its end, and said once that nobody reads it (at most once where a terminal is gone)."""
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert err.count("\n") in (said, 1)
    assert not err or err.startswith("warning: nothing can be shown any more (")
    found = checkpoint.latest(out / "checkpoints")
    assert found is not None
    assert found.step == 6 * epochs
    assert (out / "report.html").is_file()


def test_the_reader_of_a_pipe_ends(tmp_path: Path) -> None:
    process = begin(tmp_path / "run", 2, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    ended(process, tmp_path / "run", 2)


def test_a_terminal_goes(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    process = begin(tmp_path / "run", 2, stdout=theirs, env={**os.environ, "TERM": "dumb"})
    os.close(theirs)
    os.read(ours, 1)
    os.close(ours)
    ended(process, tmp_path / "run", 2, said=0)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_the_disk_of_a_log_is_full(tmp_path: Path) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        ended(begin(tmp_path / "run", 1, stdout=full), tmp_path / "run", 1)


def test_the_run_folder_goes(tmp_path: Path) -> None:
    out = tmp_path / "parent" / "run"
    process = begin(out, 10_000, stdout=subprocess.DEVNULL)
    until((out / "checkpoints" / "latest").is_file)
    while out.parent.exists():  # a checkpoint that is being written meanwhile is in the way
        shutil.rmtree(out.parent, ignore_errors=True)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 6, err
    assert "is gone" in err
    assert err.count("\n") == 1
    assert not out.parent.exists()


def until(holds: Any) -> None:
    end = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_epoch_is_saved_before_it_is_told(tmp_path: Path) -> None:
    import minialex

    seen = []

    class Watching(Listener):
        def recorded(self, record: Any) -> None:
            if record["kind"] == "validation":
                found = checkpoint.latest(tmp_path / "run" / "checkpoints")
                last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
                seen.append((record["step"], found and found.step, last))

    minialex.train("shapes", backend="numpy", train_images=48, validation_images=16, batch_size=16, epochs=2,
                   kernels=(4,) * 5, features=(8, 8), out=tmp_path / "run", progress=Watching())  # fmt: skip
    assert [(step, saved) for step, saved, _ in seen] == [(3, 3), (6, 6)]
    assert all(last["step"] == step for step, _, last in seen)


def test_a_listener_hears_what_the_backend_does_before_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minialex

    told = []

    class Hearing(Listener):
        def preparing(self, *words: Any) -> None:
            told.append(words)

    def make_step(*args: Any) -> Any:
        hearer()("compiling kernels", 12, 57, "kernels")
        return original(*args)

    original = session.make_step
    monkeypatch.setattr(session, "make_step", make_step)
    minialex.train("shapes", backend="numpy", train_images=16, validation_images=16, batch_size=16, epochs=1,
                   kernels=(4,) * 5, features=(8, 8), out=tmp_path / "run", progress=Hearing())  # fmt: skip
    assert set(told) == {("compiling kernels", 12, 57, "kernels")}
    hearer()("compiling kernels", 12, 57, "kernels")  # nobody listens any more


def test_only_what_hinders_showing_is_passed_over(capfd: pytest.CaptureFixture[str]) -> None:
    class Failing(Listener):
        calls = 0

        def note(self, message: str) -> None:
            self.calls += 1
            raise BrokenPipeError(32, "Broken pipe")

        def warning(self, message: str) -> None:
            raise DataError("ours")

        def validating(self, done: int, images: int) -> None:
            sys.exit(3)

    failing = Failing()
    with pytest.raises(DataError):
        Unfailing(failing).warning("")
    with pytest.raises(SystemExit):
        Unfailing(failing).validating(0, 1)
    unfailing = Unfailing(failing)
    unfailing.note("")
    unfailing.note("")
    assert failing.calls == 1
    said = "warning: nothing can be shown any more (Broken pipe); work continues without it\n"
    assert capfd.readouterr() == (said, "")  # standard output itself was sound
    print("still here")
    assert capfd.readouterr().out == "still here\n"
