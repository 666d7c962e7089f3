"""The grader's side: it requests the grade of a submission from a process (`minialex.course.grading.keeper`)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any

from minialex.backend.protocol import OPERATIONS
from minialex.course.grading.result import NOT_THEIRS, PASSED, Result
from minialex.course.grading.submission import ORDER, Source, source
from minialex.errors import ConfigurationError, nearest


@dataclass(frozen=True)
class Limits:
    """How thoroughly to check, and how long to wait.

    Attributes:
        examples: number of calls drawn for an operation in each dtype
        seed: seed of the examples; None always draws the same ones, for everyone
        timeout: processor seconds for one call; all calls of an operation may take six times as many
        memory: gibibytes that the child may allocate (Linux); 0 for no limit
        strict: whether the rules for backends apply (`minialex.course.grading.student`)
    """

    examples: int = 100
    seed: int | None = None
    timeout: float = 20.0
    memory: float = 4.0
    strict: bool = False


@dataclass
class Grade:
    """The grade of a submission.

    Attributes:
        submission: what was graded, as given
        results: one for each operation, including those that were left out
        faults: what could not be imported, with file and line
        completed: whether the NumPy reference fills in what is left out
        remarks: what was noticed on import
    """

    submission: str
    limits: Limits
    results: list[Result] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    completed: bool = True
    remarks: list[str] = field(default_factory=list)

    @property
    def counted(self) -> list[Result]:
        """The results that count."""
        return [result for result in self.results if result.status != NOT_THEIRS]

    @property
    def passed(self) -> int:
        """How many operations passed."""
        return sum(result.status == PASSED for result in self.results)

    @property
    def good(self) -> bool:
        """Whether there was something to grade and all of it passed."""
        return bool(self.counted) and not self.faults and self.passed == len(self.counted)

    def as_json(self, points: float | None = None) -> dict[str, Any]:
        """The grade as a JSON value; with `points`, the number of points."""
        from minialex import __version__

        value = {
            "minialex": __version__,
            "submission": self.submission,
            **asdict(self.limits),
            "passed": self.passed,
            "of": len(self.counted),
            "good": self.good,
            "completed_by": "numpy" if self.completed else None,
            "faults": self.faults,
            "remarks": self.remarks,
            "operations": [asdict(result) for result in self.results],
        }
        return value if points is None else {**value, "points": self.points(points), "of_points": points}

    def points(self, most: float) -> float:
        """The share of `most` points for the passed operations, with equal weights."""
        return round(most * self.passed / len(self.counted), 2) if self.counted else 0.0


def operations_asked(only: Iterable[str] | None) -> list[str] | None:
    """The operations to grade, each once.

    Raises:
        ConfigurationError: If a name is not an operation's.
    """
    wanted = None if only is None else list(dict.fromkeys(only))
    for name in wanted or ():
        if name not in ORDER:
            raise ConfigurationError(f"the protocol has no operation '{name}'.{nearest(name, ORDER)}")
    return wanted


def grade(
    text: str,
    only: Iterable[str] | None = None,
    limits: Limits | None = None,
    tell: Callable[[str, int], None] = lambda name, examples: None,
) -> Grade:
    """Grade a submission.

    Args:
        text: a file, a folder, an importable name, ``module:Class`` or an installed backend's name
        only: the operations to grade, of which absent ones count as missing; None: all that the submission has
        limits: how thoroughly to check and how long to wait
        tell: called with an operation's name and the number of its examples tried so far

    Raises:
        ConfigurationError: If there is nothing of that name, or no operation of one of the names in `only`.
    """
    wanted, where = operations_asked(only), source(text)
    with Keeper() as keeper:
        return keeper.grade(text, where, wanted, limits or Limits(), tell)


class Keeper:
    """A process of `minialex.course.grading.keeper`, which grades one submission after another."""

    COMMAND = (sys.executable, "-P", "-c", "from minialex.course.grading.keeper import main; main()")

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise ConfigurationError(
                "grading needs Linux or macOS (on Windows: WSL): it forks a process per submission"
            )
        one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            self.COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,
            env={**os.environ, **one},  # processor time counts, and there may be as many processes as cores
        )

    def __enter__(self) -> Keeper:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def grade(
        self,
        text: str,
        where: Source,
        only: list[str] | None,
        limits: Limits,
        tell: Callable[[str, int], None] = lambda name, examples: None,
    ) -> Grade:
        """Grade a submission (see `grade`) that was found at `where`."""
        graded, results = Grade(text, limits), {}
        task = {"source": asdict(where), "only": only, **asdict(limits)}
        found: dict[str, Any] = {"names": [], "faults": ["it ended the grader's own process"]}
        running = ""
        try:
            self.stream.write(json.dumps({**task, "memory": 0 if where.kind == "installed" else limits.memory}) + "\n")
            self.stream.flush()
            for line in self.process.stdout or ():
                message = json.loads(line)
                if message["kind"] == "busy":
                    running = message["operation"]
                    tell(running, message["examples"])
                elif message["kind"] == "result":
                    results[message["result"]["operation"]] = Result(**message["result"])
                    running = ""
                else:
                    found = message
                    break
        except (BrokenPipeError, ValueError):  # it was killed, perhaps while writing a line
            pass
        if "results" not in found:
            self.end()  # mark it as dead, and end everything it started
        if found.get("usage"):
            raise ConfigurationError(found["usage"])
        if "results" not in found and running:
            results[running] = Result(running, "crashed", message="ended the grader's own process")
        graded.faults = found["faults"]
        graded.completed, graded.remarks = found.get("completed", True), found.get("remarks", [])
        for name in only or ():
            results.setdefault(name, Result(name, "missing", message="the submission has no such operation"))
        for name in OPERATIONS:
            results.setdefault(name, Result(name, NOT_THEIRS))
        order = {name: index for index, name in enumerate(("signatures", *ORDER, "compile_step"))}
        graded.results = sorted(results.values(), key=lambda result: order.get(result.operation, len(order)))
        return graded  # registered operations come last

    @property
    def stream(self) -> IO[str]:
        """The stream that it reads."""
        assert self.process.stdin is not None
        return self.process.stdin

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self.process.poll() is None

    def end(self) -> None:
        """Tell it to end what it has started, and then itself."""
        with contextlib.suppress(OSError):
            self.stream.close()
        try:
            self.process.wait(timeout=40)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def names(text: Sequence[str]) -> list[str]:
    """Operations' names from ``relu,conv2d``."""
    return [name.strip() for part in text for name in part.split(",") if name.strip()]
