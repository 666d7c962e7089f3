"""Grading a class: the submissions in a folder, graded a few at a time, each with its own seed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import queue
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from minialex import __version__
from minialex.backend.protocol import OPERATIONS
from minialex.course.grading.process import Grade, Keeper, Limits, operations_asked
from minialex.course.grading.result import NOT_THEIRS, PASSED, UNFINISHED, read, short
from minialex.course.grading.submission import Source
from minialex.errors import ConfigurationError, MinialexError
from minialex.storage import atomic

COLUMNS = ("name", "points", "of_points", "passed", "of", "seed", "examples", "fault")
"""The first columns of the table of points; an operation each follows."""


@dataclass(frozen=True)
class Student:
    """A submission of a class.

    Attributes:
        name: name of the file without its extension, or of the folder
        grade: the submission's grade
        reused: whether it was graded before and has not changed
    """

    name: str
    grade: Grade
    reused: bool = False


def submissions(folder: Path) -> tuple[dict[str, Path], list[str]]:
    """The submissions in a folder by name, in order, and the names of files that are not submissions.

    A ``.py`` file is a submission, and so is a folder that contains one anywhere; names that begin with a dot or an
    underscore are ignored.

    Raises:
        ConfigurationError: If there is no such folder, or nothing in it, or two submissions have one name.
    """
    if not folder.is_dir():
        raise ConfigurationError(
            f"'{folder}' is not a folder: --each takes a folder with one .py file or folder per student"
        )
    found: dict[str, Path] = {}
    others = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if not (path.is_file() and path.suffix == ".py") and not (path.is_dir() and next(path.rglob("*.py"), None)):
            others.append(path.name)
            continue
        name = path.stem if path.is_file() else path.name
        if name in found:
            raise ConfigurationError(
                f"'{found[name]}' and '{path}' would belong to the same student: rename one of them"
            )
        found[name] = path
    if not found:
        raise ConfigurationError(f"no submission in '{folder}': neither a .py file nor a folder with one")
    return found, others


def seed_of(name: str, seed: int | None) -> int:
    """A student's own seed: always the same, and different for every name."""
    text = f"{'' if seed is None else seed}/{name}"
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()[:4], "big")


def grade_each(
    found: dict[str, Path],
    only: Sequence[str] | None,
    limits: Limits,
    into: Path | None = None,
    points: float | None = None,
    jobs: int = 0,
    tell: Callable[[str], None] = lambda name: None,
) -> Iterator[Student]:
    """Grade submissions; grades come in the order of `found`, each as soon as it and all before it are ready.

    Args:
        found: by name (`submissions`)
        only: see `minialex.course.grading.process.grade`
        limits: a student's seed is derived from its seed and the student's name
        into: a folder for one ``NAME.json`` each; a submission whose grade is there and that has not changed is not
            graded again
        points: the points that a perfect submission gets
        jobs: how many submissions to grade at a time; 0 for one per core
        tell: called with the name of each that has been graded

    Raises:
        ConfigurationError: If there is no operation of one of the names in `only`.
    """
    wanted = operations_asked(only)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = min(jobs or cores, len(found))
    keepers: queue.SimpleQueue[Keeper | None] = queue.SimpleQueue()
    if into is not None:
        atomic.make_folder(into)

    def graded(name: str, path: Path) -> Student:
        keeper = keepers.get()
        try:
            own = replace(limits, seed=seed_of(name, limits.seed))
            try:
                about = {"name": name, "only": wanted, "content": digest(path)}
            except MinialexError as error:  # it cannot be read
                return Student(name, Grade(str(path), own, faults=[str(error)]))
            if into is not None and (before := _before(into / f"{name}.json", about, own)):
                return Student(name, before, reused=True)
            if keeper is None or not keeper.alive:
                keeper = Keeper()
                running.append(keeper)
            try:
                grade = keeper.grade(str(path), Source("path", str(path.resolve())), wanted, own)
            except MinialexError as error:  # for example several classes: this student's problem
                grade = Grade(str(path), own, faults=[str(error)])
            if stopping.is_set():  # it did not end by itself
                raise ConfigurationError("grading was stopped")
            if into is not None:
                atomic.write_json(into / f"{name}.json", {**about, **grade.as_json(points)})
            return Student(name, grade)
        finally:
            keepers.put(keeper)
            tell(name)

    running: list[Keeper] = []
    stopping = threading.Event()
    for _ in range(jobs):
        keepers.put(None)
    with ThreadPoolExecutor(jobs) as pool, contextlib.ExitStack() as ends:
        ends.callback(lambda: _end(running))
        ends.callback(lambda: pool.shutdown(wait=False, cancel_futures=True))
        ends.callback(stopping.set)
        for future in [pool.submit(graded, name, path) for name, path in found.items()]:
            yield future.result()


def _end(keepers: Sequence[Keeper]) -> None:
    for keeper in keepers:
        keeper.end()


def digest(path: Path) -> str:
    """SHA-256 of a submission: its file, or its folder's files with their names."""
    made = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if "__pycache__" not in p.parts)
    for file in files:
        if file.is_file():
            with atomic.translate_os_errors(file):
                content = file.read_bytes()
            made.update(f"{os.fsencode(file.relative_to(path.parent)).hex()} {len(content)}\n".encode() + content)
    return made.hexdigest()


def _before(path: Path, about: dict[str, Any], limits: Limits) -> Grade | None:
    """The grade of the same submission for the same request and version of minialex, if a file has it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        same = {"minialex": __version__, **about, **asdict(limits)}
        if {name: value[name] for name in same} != same:
            return None
        results = [read(row) for row in value["operations"]]
        if any(result.status == UNFINISHED for result in results):
            return None
        return Grade(
            value["submission"], limits, results, value["faults"], value["completed_by"] is not None, value["remarks"]
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def points_of(grade: Grade, points: float | None) -> tuple[float, float]:
    """The points of a grade and the maximum: one per operation if none was given."""
    most = float(len(grade.counted)) if points is None else points
    return grade.points(most), most


def as_csv(students: Sequence[Student], only: Sequence[str] | None, points: float | None) -> str:
    """The table of points: `COLUMNS`, and the result of each requested or existing operation."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    operations = [name for name in OPERATIONS if only is None or name in only]
    operations += [name for name in only or () if name not in operations]
    writer.writerow([*COLUMNS, *operations])
    for student in students:
        grade = student.grade
        status = {result.operation: result.status for result in grade.results if result.status != NOT_THEIRS}
        mine, most = points_of(grade, points)
        row = [mine, most, grade.passed, len(grade.counted), grade.limits.seed, grade.limits.examples]
        fault = " ".join("; ".join(grade.faults).split())
        writer.writerow([plain(student.name), *row, plain(fault), *(status.get(name, "") for name in operations)])
    return file.getvalue()


def plain(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = short(text)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def common_failures(students: Sequence[Student]) -> list[tuple[int, str, str, list[str]]]:
    """The most frequent failures: number of students, operation, failure, and names."""
    seen: dict[tuple[str, str], list[str]] = {}
    for student in students:
        for fault in student.grade.faults:
            kind = next(iter(re.findall(r"\b[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b", fault)), _kind(fault))
            seen.setdefault(("importing it", kind), []).append(student.name)
        for result in student.grade.counted:
            if result.status != PASSED and not (student.grade.faults and result.status == "missing"):
                what = result.status if result.status in ("missing", "stub") else _kind(result.message)
                seen.setdefault((result.operation, what), []).append(student.name)
    counted = Counter({key: len(dict.fromkeys(names)) for key, names in seen.items()})
    return [(count, *key, list(dict.fromkeys(seen[key]))) for key, count in counted.most_common()]


def _kind(message: str) -> str:
    """A message without the parts that differ between examples."""
    text = message.partition(" in example ")[0].partition("; worst at ")[0]
    text = re.sub(r" in \d[\d,]* of \d[\d,]* elements", "", text)
    return re.sub(r"\d+(\.\d+)?(e[-+]\d+)?", "#", " ".join(text.split()))[:90]
