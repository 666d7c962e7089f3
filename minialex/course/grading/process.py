"""The parent's side of grading: a child process that is asked, waited for, and ended when its time is up."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from minialex.backend.protocol import OPERATIONS
from minialex.course.grading.result import NOT_THEIRS, PASSED, Result
from minialex.course.grading.submission import ORDER, Source, source
from minialex.errors import ConfigurationError, nearest


@dataclass(frozen=True)
class Limits:
    """How hard to look, and how long to wait.

    Attributes:
        examples: calls drawn for an operation in each dtype
        seed: of the examples; None draws the same ones for everybody, every time
        timeout: seconds for one operation
        memory: gibibytes that the child may allocate (Linux); 0 for no limit
    """

    examples: int = 100
    seed: int | None = None
    timeout: float = 120.0
    memory: float = 4.0


@dataclass
class Grade:
    """The grade of a submission.

    Attributes:
        submission: what was graded, as it was given
        results: one an operation, those that were left out too
        faults: what could not be imported, with file and line
        completed: whether the NumPy reference fills in what is left out
        remarks: what was noticed on importing
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
        """A JSON value; with `points`, how many of them."""
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
        """The share of `most` points that the passed operations are worth, all operations alike."""
        return round(most * self.passed / len(self.counted), 2) if self.counted else 0.0


def grade(
    text: str,
    only: Iterable[str] | None = None,
    limits: Limits | None = None,
    tell: Callable[[str, int], None] = lambda name, examples: None,
) -> Grade:
    """Grade a submission.

    Args:
        text: a file, a folder, an importable name, ``module:Class`` or an installed backend's name
        only: the operations to grade; one that is not there is missing. None: all that the submission has
        limits: how hard to look and how long to wait
        tell: called with an operation's name and the number of its examples tried so far

    Raises:
        ConfigurationError: If there is nothing of that name, or no operation of one of the names in `only`.
    """
    limits = limits or Limits()
    wanted = None if only is None else list(dict.fromkeys(only))
    for name in wanted or ():
        if name not in ORDER:
            raise ConfigurationError(f"the protocol has no operation '{name}'.{nearest(name, ORDER)}")
    where = source(text)
    graded = Grade(text, limits)
    with contextlib.ExitStack() as ends:

        def begin() -> tuple[Child, dict[str, Any]]:
            child = Child(where, limits)
            ends.callback(child.end)
            return child, child.wait(limits.timeout)

        child, found = begin()
        if found.get("usage"):
            raise ConfigurationError(found["usage"])
        if found["kind"] != "found":
            graded.faults.append(f"importing it {_end(found, limits)}")
            found = {"names": [], "places": {}, "faults": [], "completed": True, "remarks": []}
        graded.faults += found["faults"]
        graded.completed, graded.remarks = found["completed"], found["remarks"]
        for name in found["names"] if wanted is None else wanted:
            if name not in found["names"]:
                graded.results.append(Result(name, "missing", message="the submission has no such operation"))
                continue
            if not child.alive:
                child, _ = begin()
            graded.results.append(_ask(child, name, found["places"].get(name, ""), limits, tell))
    had = {result.operation for result in graded.results}
    graded.results += [Result(name, NOT_THEIRS) for name in OPERATIONS if name not in had]
    order = {name: index for index, name in enumerate(("signatures", *ORDER, "compile_step"))}
    graded.results.sort(key=lambda result: order.get(result.operation, len(order)))  # registered ones last
    return graded


def _ask(child: Child, name: str, place: str, limits: Limits, tell: Callable[[str, int], None]) -> Result:
    """One operation's result, whatever becomes of the child."""
    last: dict[str, Any] = {"examples": 0, "call": name, "at": time.monotonic()}
    failing: list[Result] = []

    def hear(message: dict[str, Any]) -> None:
        if message["kind"] == "busy":
            last.update(message, at=time.monotonic())
            tell(name, message["examples"])
        elif message["kind"] == "failing":
            failing.append(Result(**message["result"]))

    began = time.monotonic()
    child.ask({"operation": name})
    answer = child.wait(limits.timeout, hear)
    if answer["kind"] == "result":
        return Result(**answer["result"])
    seconds = round(time.monotonic() - began, 3)
    if failing:  # something wrong was found, and making it smaller took too long
        result = replace(failing[-1], seconds=seconds)
        result.remarks.append(f"the example could be smaller: looking for one {_end(answer, limits)}")
        return result
    status = "out of time" if answer["kind"] == "timeout" else "crashed"
    busy = time.monotonic() - last["at"]
    message = f"{_end(answer, limits)} in example {last['examples']}, {busy:.0f} s after it began: {last['call']}"
    return Result(name, status, place, last["examples"], seconds, message)


def _end(answer: dict[str, Any], limits: Limits) -> str:
    """How a child that gave no answer ended, in words."""
    if answer["kind"] == "timeout":
        return f"did not end within {limits.timeout:g} s"
    code = answer["code"]
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"ended the process ({signal.Signals(-code).name})"
    return f"ended the process (exit code {code})"


class Child:
    """A process of `minialex.course.grading.worker`, in a session of its own, so that what it starts ends with it."""

    def __init__(self, where: Source, limits: Limits) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "minialex.course.grading.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self.heard: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        task = {"source": asdict(where), "examples": limits.examples, "seed": limits.seed}
        self.ask({**task, "memory": 0 if where.kind == "installed" else limits.memory})

    @property
    def alive(self) -> bool:
        """Whether it can be asked."""
        return self.process.poll() is None

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with contextlib.suppress(ValueError):
                self.heard.put(json.loads(line))
        self.heard.put(None)

    def ask(self, question: dict[str, Any]) -> None:
        """Send one line."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has ended, which `wait` says
            self.process.stdin.write(json.dumps(question) + "\n")
            self.process.stdin.flush()

    def wait(self, seconds: float, hear: Callable[[dict[str, Any]], None] = lambda message: None) -> dict[str, Any]:
        """Its answer; ``{"kind": "timeout"}`` or ``{"kind": "ended", "code": …}`` if there is none, and it is ended."""
        until = time.monotonic() + seconds
        while True:
            try:
                message = self.heard.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                self.end()
                return {"kind": "timeout"}
            if message is None:
                code = self.process.wait()
                self.end()
                return {"kind": "ended", "code": code}
            if message["kind"] in ("found", "result"):
                return message
            hear(message)

    def end(self) -> None:
        """End it and what it started."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        self.listener.join(timeout=5)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def names(text: Sequence[str]) -> list[str]:
    """Operations' names from ``relu,conv2d``."""
    return [name.strip() for part in text for name in part.split(",") if name.strip()]
