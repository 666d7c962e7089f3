"""A run is a folder: recipe, facts about its data, metrics, checkpoints, a log, pictures and a report.

The data's name, its classes, the mean image and the colour covariance are in ``data.json`` and ``data.safetensors``:
evaluation and prediction need them even after the data itself is gone. ``data.json`` also records the version that
made the run and the SHA-256 of its images and of a user-defined network, so that resuming can compare them.

Everything that determines a run's numbers has checksums: these two files, ``recipe.toml`` and ``init.json`` in
``SHA256SUMS`` (`minialex.storage.sums`), a checkpoint's files in its manifest. Metrics and log have none, since nothing
is computed from them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from minialex import __version__
from minialex.data.statistics import Statistics
from minialex.errors import CheckpointError, ConfigurationError, DataError, ResourceError
from minialex.runs.checkpoint import check_against
from minialex.storage import atomic, locks, safetensors, sums

logger = logging.getLogger("minialex")

RECIPE, METRICS, LOG, LOCK = "recipe.toml", "metrics.jsonl", "log.txt", "run.lock"
DATA, ARRAYS = "data.json", "data.safetensors"
BEGUN = "training begins at step"  # in the log, after the first checkpoint
CHECKED = (
    RECIPE,
    ARRAYS,
    DATA,
    "init.json",
)  # have a checksum in the folder; the last only if training began with weights
FORMAT = 2  # of the folder; runs of format 1 record neither it nor their images

Record = dict[str, Any]


class Run:
    """A run folder that only this process writes to, from `create` or `resume` until `close`.

    It is a run as soon as ``recipe.toml`` exists. Use it in a ``with`` block; a killed process releases its lock, too.
    To read another process's run, use `RunPaths` and `read_metrics`, which need no lock.

    Every method that writes raises ResourceError if the disk is full or failing; the file is then unchanged.

    Attributes:
        paths: the paths of its files
    """

    def __init__(self, path: str | os.PathLike[str], recipe: str | None) -> None:
        self.paths = RunPaths(path)
        folder = self.paths.folder
        with contextlib.ExitStack() as stack:
            stack.enter_context(locks.locked_by_file(folder, LOCK))
            if recipe is not None:
                if is_run(folder):  # another process was faster, and has already ended
                    raise ConfigurationError(f"{str(folder)!r} already holds a run: choose another folder")
                sums.write(folder, {RECIPE: recipe.encode()})
            for written in (folder, self.paths.pictures):
                atomic.remove_stale(written)
            self._metrics = atomic.LineFile(self.paths.metrics)
            stack.callback(lambda: self._metrics.close())  # noqa: PLW0108 - `drop_metrics_after` opens it anew
            self._log = atomic.LineFile(self.paths.log)
            stack.callback(self._log.close)
            self._folder = folder.stat()
            self._made_folder = False
            self._stack = stack.pop_all()

    @classmethod
    def create(cls, path: str | os.PathLike[str], recipe: str) -> Run:
        """Begin a run in a new or empty folder.

        Args:
            path: the run folder
            recipe: the resolved recipe as TOML text

        Raises:
            ConfigurationError: the folder contains a run or other files, is locked by another process, or is not
                writable
        """
        path = Path(path)
        if is_run(path):
            raise ConfigurationError(f"{str(path)!r} already holds a run: resume it, or choose another folder")
        is_new = not path.exists()
        atomic.make_folder(path)
        # a process killed before it wrote the recipe leaves its lock and temporary files: no reason to refuse
        ours = (LOCK, sums.SUMS)
        others = sorted(name for name in os.listdir(path) if name not in ours and not name.startswith(atomic.TEMPORARY))
        if others:
            raise ConfigurationError(
                f"{str(path)!r} is not empty and not a run (it holds {others[0]!r}): choose another folder"
            )
        run = cls(path, recipe)
        run._made_folder = is_new
        return run

    @classmethod
    def resume(cls, path: str | os.PathLike[str]) -> Run:
        """Open an existing run to continue it. Call `drop_metrics_after` before the first new record.

        Raises:
            ConfigurationError: there is no run, another process works on it (the message names it), or it is not
                writable
        """
        if not is_run(path):
            raise ConfigurationError(
                f"no run at {os.fspath(path)!r}: {RECIPE} is missing: check the path, or begin a new run"
            )
        return cls(path, None)

    def write_recipe(self, recipe: str) -> None:
        """Replace the run's recipe with another one, as TOML text."""
        sums.write(self.paths.folder, {RECIPE: recipe.encode()})

    def append(self, record: Mapping[str, object]) -> None:
        """Append a record to the metrics; non-finite numbers are written as null.

        Write a record of step n before the checkpoint of step n: one between a checkpoint and a kill is lost.
        """
        self._metrics.append(atomic.json_line(record))

    def had_checkpoints(self) -> bool:
        """Whether metrics or log show that training began, which it does after its first checkpoint."""
        with atomic.translate_os_errors(self.paths.metrics):
            return self.has_records() or BEGUN.encode() in self.paths.log.read_bytes()

    def has_records(self) -> bool:
        """Whether the metrics have any records of steps or of a validation."""
        records = [_parsed(line) for line in self.paths.metrics.read_bytes().splitlines(keepends=True)]
        return any(record is not None and record.get("kind") in ("train", "validation") for record in records)

    def remove_if_empty(self) -> None:
        """After a failure, remove all of a new run that has no results, so that the same command works again.

        A run with records, or with a checkpoint of a step after 0, stays.
        """
        with contextlib.suppress(OSError):
            saved = {path.name for path in self.paths.checkpoints.glob("step-*")}
            if self.has_records() or not saved <= {"step-00000000"}:
                return
            for path in self.paths.folder.iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()
            if self._made_folder:
                self.paths.folder.rmdir()

    def drop_metrics_after(self, step: int, validated: float = math.inf) -> None:
        """Remove the records that the resumed run is about to write again.

        Unreadable lines are removed too, and the log says so.

        Args:
            step: the last step whose records stay
            validated: the last epoch whose validation stays: a kill may come between a validation at an epoch's end and
                its checkpoint, when another one of this step is there, of a stop before the validation
        """
        kept: list[bytes] = []
        damaged = 0
        with atomic.translate_os_errors(self.paths.metrics):
            lines = self.paths.metrics.read_bytes().splitlines(keepends=True)
        for line in lines:
            record = _parsed(line)
            if record is None:
                damaged += 1
            elif not (_above(record.get("step"), step) or _above(_validation(record), validated)):
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
        """Append a line to ``log.txt``, with the time."""
        self._log.append(f"{locks.now()} {message}")

    def sync(self) -> None:
        """Wait until metrics and log are on disk, before a checkpoint that relies on them.

        Raises:
            ResourceError: the folder was removed or moved, so that nothing can be saved in it any more
        """
        folder = self.paths.folder
        if not (folder.is_dir() and os.path.samestat(self._folder, folder.stat())):
            raise ResourceError(
                f"the run folder {str(folder)!r} is gone: it was removed or moved while the run wrote to it, and what "
                "was trained since the last checkpoint is lost; restore it and resume, or start over"
            )
        self._metrics.sync()
        self._log.sync()

    def close(self) -> None:
        """Close the files and release the run's lock; a second call does nothing."""
        self._stack.close()

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Follower:
    """Takes the place of a `Run` on ranks other than the first: it writes nothing.

    Attributes:
        paths: the paths of rank 0's run
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.paths = RunPaths(path)

    def append(self, record: Mapping[str, object]) -> None:
        """Do nothing: rank 0 does it."""

    def log(self, message: str) -> None:
        """Do nothing: rank 0 does it."""

    def remove_if_empty(self) -> None:
        """Do nothing: rank 0 does it."""

    def __enter__(self) -> Follower:
        return self

    def __exit__(self, *_: object) -> None:
        """There is nothing to close."""


class RunPaths:
    """The paths of a run's parts; nothing is read, written or checked."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.recipe = self.folder / RECIPE
        self.metrics = self.folder / METRICS
        self.log = self.folder / LOG
        self.report = self.folder / "report.html"
        self.checkpoints = self.folder / "checkpoints"
        self.pictures = self.folder / "pictures"


def is_run(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a run; ConfigurationError if it is not readable."""
    try:
        return RunPaths(path).recipe.is_file()
    except PermissionError as error:
        raise ConfigurationError(f"cannot read {os.fspath(path)!r}: {error.strerror}") from error


def read_metrics(path: str | os.PathLike[str]) -> list[Record]:
    """Read ``metrics.jsonl``, even while a run writes it: an incomplete last line is ignored.

    Raises:
        DataError: the file is missing, or a line before the last is damaged; the message gives its number
    """
    try:
        lines = Path(path).read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise DataError(f"cannot read the metrics {os.fspath(path)!r}: {error.strerror}: check the path") from error
    records = [_parsed(line) for line in lines]
    if None in records[:-1]:
        number = records.index(None) + 1
        raise DataError(f"{os.fspath(path)!r}, line {number} is damaged: not a JSON object: delete that line")
    return [record for record in records if record is not None]


def trained_epochs(records: Iterable[Record]) -> int:
    """The epochs that a run's metrics show to be trained whole, validated or not."""
    return max((int(record["epoch"]) for record in records if record.get("kind") in ("train", "validation")), default=0)


def _validation(record: Record) -> object:
    """The epoch that a record says to be validated, if it does."""
    return record.get("epoch") if record.get("kind") == "validation" else None


def _above(value: object, limit: float) -> bool:
    return isinstance(value, int) and value > limit


def _parsed(line: bytes) -> Record | None:
    with contextlib.suppress(ValueError, RecursionError):
        if line.endswith(b"\n") and isinstance(record := json.loads(line), dict):
            return record
    return None


@dataclass(frozen=True)
class RunData:
    """What a run stores about its data."""

    name: str
    class_names: tuple[str, ...]
    statistics: Statistics  # of the training set
    words: tuple[str, ...] = ()  # readable names of the classes; empty if they are the class names
    # what determines the numbers besides the recipe, as text by name; empty in a run of format 1
    decides: Mapping[str, str] = field(default_factory=dict)

    @property
    def titles(self) -> tuple[str, ...]:
        """The text to show for each class: its words if known, else its name."""
        return self.words or self.class_names


def write_data(folder: Path, data: RunData) -> None:
    """Write both files; the one that names the classes comes last and completes them."""
    arrays: dict[str, NDArray[Any]] = {"mean": data.statistics.mean, "covariance": data.statistics.covariance}
    names = {
        "format": FORMAT, "minialex": __version__, "name": data.name, "class_names": list(data.class_names),
        "words": list(data.words), "decides": dict(data.decides),
    }  # fmt: skip
    content = b"".join(safetensors.chunks(safetensors.header(arrays, ARRAYS), arrays))
    sums.write(folder, {ARRAYS: content, DATA: atomic.json_bytes(names, folder / DATA)})


def has_data(folder: Path) -> bool:
    """Whether both files exist."""
    return (folder / DATA).is_file()


def read_data(folder: Path) -> RunData:
    """Read both files; CheckpointError if they are missing, damaged or of a newer minialex."""
    path = folder / DATA
    check_format(folder)
    for name in (ARRAYS, DATA):
        sums.check(folder / name)
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
        name, class_names = str(names["name"]), tuple(str(item) for item in names["class_names"])
        words = tuple(str(item) for item in names.get("words", ()))
        decides = {str(what): str(value) for what, value in names.get("decides", {}).items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}): this is not a complete run folder") from None
    arrays = safetensors.read(folder / ARRAYS)
    expected = {"mean": arrays["mean"].shape, "covariance": (3, 3)} if "mean" in arrays else {}
    check_against(arrays, expected, str(path))
    return RunData(name, class_names, Statistics(arrays["mean"], arrays["covariance"]), words, decides)


def check_format(folder: Path) -> None:
    """Refuse a run of a newer minialex before anything else of it is read; raises CheckpointError.

    If the checksums of its files are missing, a warning says so.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):  # damaged: `read_data` gives a better message
        about = json.loads((folder / DATA).read_bytes())
        if isinstance(about.get("format", 1), int) and about.get("format", 1) > FORMAT:
            raise CheckpointError(
                f"{folder} was made by a newer minialex ({about.get('minialex', 'unknown')}; format {about['format']} "
                f"of runs, this one reads up to {FORMAT}): update minialex"
            )
        if about.get("format", 1) == FORMAT and not (folder / sums.SUMS).exists():
            _warn_unchecked(folder.resolve())


@cache
def _warn_unchecked(folder: Path) -> None:
    """Say once that a run's checksums are gone."""
    names = [name for name in CHECKED if (folder / name).is_file()]
    again = f"cd {shlex.quote(str(folder))} && sha256sum {' '.join(names)} > {sums.SUMS}"
    logger.warning(
        "%s is missing, so that %s are not compared with their checksums. If they are as they should be, this writes it"
        " again: %s", folder / sums.SUMS, ", ".join(names), again,
    )  # fmt: skip
