"""Run folders: begun once, locked against a second trainer, their metrics cut back when a run is resumed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.data.statistics import Statistics
from minialex.errors import CheckpointError, ConfigurationError, DataError, ResourceError
from minialex.recipe.fields import Recipe
from minialex.runs import run_folder as runs
from minialex.runs.run_folder import Run, RunData, RunPaths, is_run, read_data, read_metrics, write_data
from minialex.runs.weights_file import recipe_of
from minialex.storage import atomic

ROOT = Path(__file__).parents[2]
RECIPE = 'seed = 1\nname = "ü"\n'


@contextlib.contextmanager
def another_process(folder: Path, then: str = "time.sleep(60)") -> Iterator[subprocess.Popen[str]]:
    """Let another process resume a run and hold it; it is killed at the end of the block."""
    code = f"""
import os, sys, time
from minialex.runs.run_folder import Run
run = Run.resume(sys.argv[1])
print("ready", flush=True)
{then}
"""
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    command = [sys.executable, "-c", code, os.fspath(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_run_is_begun_and_resumed(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "first"
    assert not is_run(path)
    with Run.create(path, RECIPE) as run:
        run.append({"kind": "train", "step": 1, "loss": 0.5})
        run.log("began")
    assert is_run(path)
    with Run.resume(path) as run:
        run.append({"kind": "train", "step": 2, "loss": float("nan")})
        run.log("went on\nover two lines")
        run.sync()
    run.close()
    assert run.paths.recipe.read_bytes() == RECIPE.encode()
    assert read_metrics(run.paths.metrics) == [
        {"kind": "train", "step": 1, "loss": 0.5},
        {"kind": "train", "step": 2, "loss": None},
    ]
    lines = [line.split(" ", 1) for line in run.paths.log.read_text().splitlines()]
    assert [text for _, text in lines] == ["began", "went on over two lines"]
    assert all(len(time) == len("2012-09-30T12:00:00+00:00") for time, _ in lines)
    assert sorted(os.listdir(path)) == ["SHA256SUMS", "log.txt", "metrics.jsonl", "recipe.toml", "run.lock"]


def test_paths() -> None:
    paths = RunPaths("run")
    found = [paths.folder, paths.checkpoints, paths.pictures, paths.report]
    assert found == [Path("run"), Path("run/checkpoints"), Path("run/pictures"), Path("run/report.html")]


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    Run.create(tmp_path / "run", RECIPE).close()
    with pytest.raises(ConfigurationError, match=r"run' already holds a run: resume it, or choose another folder"):
        Run.create(tmp_path / "run", "")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").touch()
    with pytest.raises(ConfigurationError, match=r"notes' is not empty and not a run \(it holds 'thesis\.tex'\)"):
        Run.create(tmp_path / "notes", RECIPE)
    assert os.listdir(tmp_path / "notes") == ["thesis.tex"]
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="Not a directory"):
        Run.create(tmp_path / "file", RECIPE)


def test_there_must_be_a_run_to_resume(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no run at .*: recipe\.toml is missing: check the path, or begin a new run"
    ):
        Run.resume(tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_run_that_was_killed_before_its_recipe_can_be_begun_again(tmp_path: Path) -> None:
    for name in ("run.lock", ".tmp-0-recipe.toml"):
        (tmp_path / name).write_text('{"pid": 1')
    Run.create(tmp_path, RECIPE).close()
    assert sorted(os.listdir(tmp_path)) == ["SHA256SUMS", "log.txt", "metrics.jsonl", "recipe.toml", "run.lock"]


def test_what_a_killed_process_was_writing_is_cleared_away(tmp_path: Path) -> None:
    Run.create(tmp_path, RECIPE).close()
    (tmp_path / "pictures").mkdir()
    for name in (".tmp-0-report.html", "pictures/.tmp-0-curves.png"):
        (tmp_path / name).touch()
    Run.resume(tmp_path).close()
    assert set(os.listdir(tmp_path)) == {
        "SHA256SUMS",
        "log.txt",
        "metrics.jsonl",
        "pictures",
        "recipe.toml",
        "run.lock",
    }
    assert os.listdir(tmp_path / "pictures") == []


# ---------------------------------------------------------------- the lock


def test_a_second_trainer_is_refused_and_told_who_holds_the_run(tmp_path: Path) -> None:
    Run.create(tmp_path, RECIPE).close()
    with another_process(tmp_path) as holder:
        for _ in range(2):  # a refusal takes nothing away from the holder
            with pytest.raises(ConfigurationError) as caught:
                Run.resume(tmp_path)
            message = str(caught.value)
            assert message.startswith(f"'{tmp_path}' is in use by process {holder.pid} on {platform.node()} since 20")
            assert message.endswith(": wait until it ends, stop it, or choose another folder")
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert json.loads((tmp_path / "run.lock").read_text())["pid"] == holder.pid
        Run.resume(tmp_path).close()  # the lock of a dead process is no obstacle


def test_the_lock_ends_with_the_run_and_holds_within_one_process(tmp_path: Path) -> None:
    with Run.create(tmp_path, RECIPE):
        with pytest.raises(ConfigurationError, match=f"in use by process {os.getpid()} "):
            Run.resume(tmp_path)
        with pytest.raises(ConfigurationError, match="already holds a run"):
            Run.create(tmp_path, RECIPE)
    Run.resume(tmp_path).close()


def test_a_forked_worker_that_outlives_its_trainer_does_not_hold_the_run(tmp_path: Path) -> None:
    Run.create(tmp_path, RECIPE).close()
    then = """
if os.fork() == 0:
    run.close()
    print(os.getpid(), flush=True)  # by now the worker has let go of the lock
time.sleep(60)
"""
    with another_process(tmp_path, then) as trainer:
        assert trainer.stdout is not None
        worker = int(trainer.stdout.readline())
        try:
            with pytest.raises(ConfigurationError, match=f"in use by process {trainer.pid} "):
                Run.resume(tmp_path)  # closing in the worker did not release the trainer's lock
            trainer.kill()
            trainer.wait()
            os.kill(worker, 0)  # it is alive
            Run.resume(tmp_path).close()
        finally:
            os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("contents", ["", "{", "[]", '{"pid": "x"}', "\xff" * 5000])
def test_whatever_is_in_the_lock_file(tmp_path: Path, contents: str) -> None:
    Run.create(tmp_path, RECIPE).close()
    (tmp_path / "run.lock").write_text(contents, encoding="latin-1")
    Run.resume(tmp_path).close()


def test_without_locks_of_the_system_the_process_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.create(tmp_path, RECIPE).close()
    monkeypatch.setattr(atomic, "try_lock", lambda _: None)  # as on some network file systems
    with another_process(tmp_path) as holder:
        with pytest.raises(ConfigurationError, match=f"in use by process {holder.pid} "):
            Run.resume(tmp_path)
        holder.kill()
        holder.wait()
        Run.resume(tmp_path).close()
    for other in ({"pid": 1, "host": "elsewhere"}, {"pid": -1, "host": platform.node()}, {"pid": True}):
        (tmp_path / "run.lock").write_text(json.dumps(other))
        Run.resume(tmp_path).close()


# ---------------------------------------------------------------- metrics


def write_lines(path: Path, *lines: str) -> Path:
    """Write lines as they are, the last without a newline unless it has one."""
    path.write_text("\n".join(lines))
    return path


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    for torn in ('{"step": 3, "lo', '{"step": 3}', "\x00" * 100, ""):
        path = write_lines(tmp_path / "metrics.jsonl", '{"step": 1}', '{"step": 2}', torn)
        assert [record["step"] for record in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("line", ["{", "", "3", "[" * 100_000, "\x00"])
def test_a_damaged_line_before_the_last_is_named(tmp_path: Path, line: str) -> None:
    path = write_lines(tmp_path / "metrics.jsonl", '{"step": 1}', line, '{"step": 2}', "")
    with pytest.raises(DataError, match=r"metrics\.jsonl', line 2 is damaged: not a JSON object: delete that line"):
        read_metrics(path)


def test_missing_metrics(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read the metrics .*: No such file or directory: check the path"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_later_records_are_dropped_on_resuming(tmp_path: Path) -> None:
    Run.create(tmp_path, RECIPE).close()
    lines = [
        '{"step": 10,  "loss": 1}',
        '{"kind": "event"}',
        '{"step": 11}',
        '{"step": 10, "top1": 0.50}',
        '{"step": 2',
    ]
    path = write_lines(tmp_path / "metrics.jsonl", *lines)
    with Run.resume(tmp_path) as run:
        run.drop_metrics_after(10)
        run.append({"step": 11, "loss": 2.0})
        run.drop_metrics_after(11)
    kept = [lines[0], lines[1], lines[3], '{"step": 11, "loss": 2.0}', ""]
    assert path.read_text() == "\n".join(kept)
    assert run.paths.log.read_text() == ""


def test_a_validation_without_its_checkpoint_is_dropped_on_resuming(tmp_path: Path) -> None:
    Run.create(tmp_path, RECIPE).close()
    lines = ['{"kind": "validation", "epoch": 1, "step": 5}', '{"kind": "train", "epoch": 2.0, "step": 10}']
    path = write_lines(tmp_path / "metrics.jsonl", *lines, '{"kind": "validation", "epoch": 2, "step": 10}', "")
    with Run.resume(tmp_path) as run:
        run.drop_metrics_after(10, 1)
    assert path.read_text() == "\n".join([*lines, ""])


def test_damaged_records_are_dropped_and_logged(tmp_path: Path) -> None:
    Run.create(tmp_path, RECIPE).close()
    path = write_lines(tmp_path / "metrics.jsonl", '{"step": 1}', "{{{", "\x00\x00", '{"step": 2}', "")
    with Run.resume(tmp_path) as run:
        run.drop_metrics_after(2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    assert run.paths.log.read_text().endswith(" metrics.jsonl: removed 2 damaged line(s)\n")


def test_metrics_are_whole_whenever_dropping_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.create(tmp_path, RECIPE).close()
    path = write_lines(tmp_path / "metrics.jsonl", '{"step": 1}', '{"step": 2}', "")

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with Run.resume(tmp_path) as run:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail)
            with pytest.raises(ResourceError, match=r"metrics\.jsonl': the disk reports an error"):
                run.drop_metrics_after(1)
        run.append({"step": 3})
    assert [record["step"] for record in read_metrics(path)] == [1, 2, 3]


def test_a_full_disk(small_disk: Path) -> None:
    folder = small_disk / "run"
    with Run.create(folder, RECIPE) as run:
        for step in range(10_000):
            try:
                run.append({"kind": "train", "step": step, "padding": "x" * 1000})
            except ResourceError as error:
                message = str(error)
                break
    assert "run/metrics.jsonl': the disk is full: 1.0 kB needed, " in message
    assert [record["step"] for record in read_metrics(folder / "metrics.jsonl")] == list(range(step))
    (small_disk / "ballast").write_bytes(b"")
    with pytest.raises(ResourceError, match=r"other/.*: the disk is full"):
        Run.create(small_disk / "other", RECIPE)
    (folder / "metrics.jsonl").unlink()
    Run.create(small_disk / "other", RECIPE).close()  # what the full disk left is no obstacle


def test_importing_needs_no_fcntl_and_locks_are_then_absent(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["fcntl"] = None  # as on Windows
from minialex.runs import checkpoint, run_folder as runs
from minialex.storage import atomic as files
from minialex.training import signals
run = runs.Run.create(sys.argv[1], "")
print(files.try_lock(0))
run.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "run"],
        env={**os.environ, "PYTHONPATH": os.fspath(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "None\n"


def test_reading_a_run_imports_no_library_but_numpy() -> None:
    code = "import sys, minialex.runs.checkpoint, minialex.runs.run_folder, minialex.training.signals\n"
    code += "print('safetensors' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_the_record_of_the_lock_is_for_people(tmp_path: Path) -> None:
    with Run.create(tmp_path, RECIPE):
        holder = json.loads((tmp_path / "run.lock").read_text())
    assert (holder["pid"], holder["host"]) == (os.getpid(), platform.node())
    assert (tmp_path / "run.lock").read_text() == ""
    assert runs.LOCK == "run.lock"


def test_missing_checksums_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "a run"
    with Run.create(folder, Recipe().to_toml()):
        write_data(folder, RunData("shapes", ("a", "b"), Statistics(np.zeros((3, 4, 4), np.float32), np.eye(3))))
    recipe_of(folder)
    read_data(folder)
    assert caplog.text == ""
    (folder / "SHA256SUMS").unlink()
    recipe_of(folder)
    read_data(folder)
    assert caplog.text.count("SHA256SUMS is missing") == 1
    assert "recipe.toml, data.safetensors, data.json are not compared" in caplog.text
    if shutil.which("sha256sum"):
        subprocess.run(caplog.text.strip().rpartition("again: ")[2], shell=True, check=True)
        (folder / "recipe.toml").write_text("seed = 1\n", encoding="utf-8")
        with pytest.raises(CheckpointError, match="damaged or was edited"):
            recipe_of(folder)
    names = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    (folder / "data.json").write_text(json.dumps({**names, "format": 1}), encoding="utf-8")
    older = shutil.copytree(folder, tmp_path / "older", ignore=shutil.ignore_patterns("SHA256SUMS"))
    caplog.clear()
    read_data(older)
    assert caplog.text == "", "it never had any"
