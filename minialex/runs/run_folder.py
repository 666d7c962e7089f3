"""A run is a folder: the recipe, the metrics, the checkpoints, a log, pictures and a report."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minialex.errors import ConfigurationError, DataError
from minialex.storage import atomic

RECIPE, METRICS, LOG, LOCK = "recipe.toml", "metrics.jsonl", "log.txt", "run.lock"

Record = dict[str, Any]


class Run:
    """A run folder that this process alone writes to, from `create` or `resume` until `close`.

    It is a run from the moment when ``recipe.toml`` is there. Use it in a ``with`` block; a process that is killed
    releases its lock too. To read the run of someone else, take `RunPaths` and `read_metrics`: they need no lock.

    Attributes:
        paths: RunPaths
            Where everything is.
    """

    def __init__(self, path: Path, lock: _Lock) -> None:
        self.paths = RunPaths(path)
        self._lock = lock
        for folder in (path, self.paths.pictures):
            atomic.remove_stale(folder)
        self._metrics = atomic.LineFile(self.paths.metrics)
        self._log = atomic.LineFile(self.paths.log)

    @classmethod
    def create(cls, path: str | os.PathLike[str], recipe: str) -> Run:
        """Begin a run in a new or empty folder.

        Args:
            path: path
                The run folder.
            recipe: str
                The resolved recipe as TOML text.

        Raises:
            ConfigurationError: The folder holds a run or other files, is locked by another process, or may not be
                written to.
            ResourceError: The disk is full or failing.
        """
        path = Path(path)
        if is_run(path):
            raise ConfigurationError(
                f"{str(path)!r} already holds a run: continue it with --resume, or choose another folder with --out"
            )
        atomic.make_folder(path)
        # a process killed before the recipe was there leaves its lock and temporary files: no reason to refuse
        others = sorted(name for name in os.listdir(path) if name != LOCK and not name.startswith(atomic.TEMPORARY))
        if others:
            raise ConfigurationError(
                f"{str(path)!r} is not empty and not a run (it holds {others[0]!r}): choose another folder with --out"
            )
        lock = _Lock(path)
        try:
            if is_run(path):  # someone was quicker, and has ended already
                raise ConfigurationError(f"{str(path)!r} already holds a run: choose another folder with --out")
            atomic.write_text(RunPaths(path).recipe, recipe)
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> Run:
        """Take up a run that exists. Call `drop_metrics_after` before the first new record.

        Raises:
            ConfigurationError: There is no run, or another process works on it (it is named), or it may not be written
                to.
            ResourceError: The disk is full or failing.
        """
        path = Path(path)
        if not is_run(path):
            raise ConfigurationError(
                f"no run at {str(path)!r}: {RECIPE} is missing: check the path, or leave out --resume"
            )
        lock = _Lock(path)
        try:
            return cls(path, lock)
        except BaseException:
            lock.release()
            raise

    def append(self, record: Mapping[str, object]) -> None:
        """Append a record to the metrics; numbers that are not finite are written as null.

        A record of step n belongs before the checkpoint of step n: what comes after it and before a kill is lost.

        Raises:
            ResourceError: The disk is full or failing; the file then ends with the record before.
        """
        self._metrics.append(atomic.json_line(record))

    def drop_metrics_after(self, step: int) -> None:
        """Remove the records of later steps than `step`, which the resumed run is about to write again.

        Lines that cannot be read are removed too, and the log says so.

        Raises:
            ResourceError: The disk is full or failing; the file is then as it was.
        """
        kept: list[bytes] = []
        damaged = 0
        with atomic.translate_os_errors(self.paths.metrics):
            lines = self.paths.metrics.read_bytes().splitlines(keepends=True)
        for line in lines:
            record = _parsed(line)
            if record is None:
                damaged += 1
            elif not _is_later(record, step):
                kept.append(line)
        if damaged:
            self.log(f"{METRICS}: removed {damaged} damaged line(s)")
        if len(kept) < len(lines):
            self._metrics.close()
            try:
                atomic.write_bytes(self.paths.metrics, b"".join(kept))
            finally:
                self._metrics = atomic.LineFile(self.paths.metrics)

    def log(self, message: str) -> None:
        """Append a line to ``log.txt``, with the time.

        Raises:
            ResourceError: The disk is full or failing.
        """
        self._log.append(f"{_now()} {message}")

    def sync(self) -> None:
        """Wait until metrics and log are on the disk: before a checkpoint that builds on them.

        Raises:
            ResourceError: The disk is failing.
        """
        self._metrics.sync()
        self._log.sync()

    def close(self) -> None:
        """Close the files and let others work on the run; a second call does nothing."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            stack.callback(self._log.close)
            stack.callback(self._metrics.close)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RunPaths:
    """Where the parts of a run are; nothing is read, written or checked.

    Attributes:
        folder: Path
            The run folder.
        recipe, metrics, log, report: Path
            Its files.
        checkpoints, pictures: Path
            Its folders.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.recipe = self.folder / RECIPE
        self.metrics = self.folder / METRICS
        self.log = self.folder / LOG
        self.report = self.folder / "report.html"
        self.checkpoints = self.folder / "checkpoints"
        self.pictures = self.folder / "pictures"


def is_run(path: str | os.PathLike[str]) -> bool:
    """Say whether a folder holds a run.

    Raises:
        ConfigurationError: The folder may not be read.
    """
    try:
        return RunPaths(path).recipe.is_file()
    except PermissionError as error:
        raise ConfigurationError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error


# ---------------------------------------------------------------- metrics


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """Read ``metrics.jsonl``, also while a run writes it: a last line that is cut short is left out.

    Raises:
        DataError: The file is missing, or a line before the last is damaged; its number is named.
    """
    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"cannot read the metrics {os.fspath(path)!r}: {error.strerror}: check the path") from error
    records: list[Record] = []
    for number, line in enumerate(lines, 1):
        record = _parsed(line)
        if record is not None:
            records.append(record)
        elif number < len(lines):
            raise DataError(f"{os.fspath(path)!r}, line {number} is damaged: not a JSON object: delete that line")
    return records


def _parsed(line: bytes) -> Record | None:
    if not line.endswith(b"\n"):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _is_later(record: Record, step: int) -> bool:
    found = record.get("step")
    return isinstance(found, int) and found > step


# ---------------------------------------------------------------- lock


class _Lock:
    """The lock of a run folder: a locked file in it, with the process, the host and the time for the message.

    The system releases the lock when the process ends in any way. The file stays: what it says counts only while
    it is locked.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        with atomic.translate_os_errors(path):
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                locked = atomic.try_lock(self._descriptor)
                holder = _holder(self._descriptor)
                if locked is False or (locked is None and _runs_here(holder)):
                    raise ConfigurationError(
                        f"{str(folder)!r} is in use by process {holder.get('pid', 'unknown')} on "
                        f"{holder.get('host', 'this machine')} since {holder.get('since', 'an unknown time')}: "
                        "wait until it ends, stop it, or choose another folder with --out"
                    )
                self._write({"pid": os.getpid(), "host": platform.node(), "since": _now()})
            except BaseException:
                self.forget()  # what the file says is the holder's
                raise
        _held.add(self)

    def _write(self, holder: Mapping[str, object]) -> None:
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, json.dumps(holder).encode() + b"\n")

    def release(self) -> None:
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            self.forget()

    def forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> Mapping[str, object]:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        found = json.loads(os.read(descriptor, 4096))
    except (OSError, ValueError):  # empty, or being written just now
        return {}
    return found if isinstance(found, dict) else {}


def _runs_here(holder: Mapping[str, object]) -> bool:
    """Whether a process lives, for file systems without locks; on Windows unknown, hence False."""
    pid = holder.get("pid")
    if os.name != "posix" or holder.get("host") != platform.node() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # signal 0: only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _forget_all() -> None:
    for lock in list(_held):
        lock.forget()


# A forked worker inherits the open file, and the lock would outlive the trainer with it.
_held: weakref.WeakSet[_Lock] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
