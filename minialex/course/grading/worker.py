"""The child process: it imports a submission, and calls and compares its operations.

`serve` sends messages, each a JSON object, through a function of its caller (`minialex.course.grading.keeper`):
``hello``; ``found`` after the import; for each operation ``begin``, any number of ``example``, ``call``, ``back`` and
``failing``, and one ``result``; at the end ``done``.
What the submission prints is diverted and counted.
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from hypothesis import settings

from minialex.backend import registry
from minialex.backend.operations import FUNCTIONS, OPERATIONS, method
from minialex.backend.protocol import Backend
from minialex.conformance.case import Case, each
from minialex.conformance.checks import CHECKS, NOTHING, PROFILES, check_case, check_operation, dtypes
from minialex.conformance.compare import Disagreement
from minialex.conformance.own import check_gradient
from minialex.conformance.strategies import MOODS, STRATEGIES
from minialex.course.grading.result import BUDGET, PASSED, WAITING, Result, describe, said, short
from minialex.course.grading.student import asked, check_student
from minialex.course.grading.submission import ORDER, Ambiguous, Source, Submission, load

KNOWN = ("numpy", "minialex", "numba", "llvmlite", "cupy", "cupy_backends")
"""Libraries that a submission may call without a remark."""

WATCHED_CALLS = 5
"""How many calls of an operation are repeated while every Python function that they enter is recorded."""

FILE = 1 << 30
"""The most bytes in a file that a submission writes."""

REMARKS = 8
"""The most remarks on one operation."""

Send = Callable[..., None]


class PrintedText:
    """Replaces standard output and error: drains what is printed and keeps the beginning."""

    KEPT = 200

    def __init__(self) -> None:
        self.count, self.first = 0, b""
        out, into = os.pipe()
        for descriptor in (1, 2):
            os.dup2(into, descriptor)
        os.close(into)
        threading.Thread(target=self._drain, args=(out,), daemon=True).start()

    def _drain(self, out: int) -> None:
        with contextlib.suppress(OSError):  # the submission may close what it does not own
            while chunk := os.read(out, 1 << 16):
                self.count += len(chunk)
                self.first += chunk[: self.KEPT - len(self.first)]

    def remark(self) -> list[str]:
        """A text on what was printed since the last call."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the submission may have closed or replaced them
                stream.flush()
        time.sleep(0.01)  # the thread empties the pipe
        count, first = self.count, self.first
        self.count, self.first = 0, b""
        line = first.decode(errors="replace").splitlines()[0] if first else ""
        return [f"printed {count:,} bytes, beginning {line[:60]!r}"] if count else []


def limit(gibibytes: float) -> None:
    """Limit files and, if the system can, memory: exceeding them is the student's error, not everyone's."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, resource.RLIM_INFINITY))
    if gibibytes and sys.platform == "linux":
        most = int(gibibytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))


def serve(task: dict[str, Any], send: Send) -> None:
    """Import the submission of a task (see `minialex.course.grading.keeper`), and grade the requested operations."""
    printed = PrintedText()
    pid = os.readlink("/proc/self") if sys.platform == "linux" else os.getpid()  # its number outside the namespace
    send(kind="hello", pid=int(pid))
    limit(task["memory"])
    try:
        submission = load(Source(**task["source"]), lenient=not task["strict"])
    except Ambiguous as error:
        send(kind="found", usage=str(error))
        return
    names = [name for name in ORDER if name in submission.own or name in submission.borrowed]
    names += [name for name in submission.own if name not in ORDER]
    whole = not submission.completed and not submission.faults
    names = ["signatures", *names, "compile_step"] if whole and set(ORDER) <= set(submission.own) else names
    send(
        kind="found",
        names=names,
        places=submission.own,
        faults=[short(fault) for fault in submission.faults],
        completed=submission.completed,
        remarks=printed.remark(),
    )
    profile = settings(PROFILES["ci"], max_examples=task["examples"])
    for name in names if task["only"] is None else task["only"]:
        if name in names and name not in task["done"]:
            send(kind="begin", operation=name)
            result = grade(submission, name, profile, task["seed"], send, task["strict"], task["timeout"])
            result.remarks = [short(remark) for remark in (*result.remarks, *printed.remark())][:REMARKS]
            send(kind="result", result=asdict(result))
    send(kind="done")


def grade(
    submission: Submission,
    name: str,
    profile: settings,
    seed: int | None,
    send: Send,
    strict: bool = False,
    timeout: float = 20.0,
) -> Result:
    """Check one operation.

    Args:
        submission: from `minialex.course.grading.submission.load`
        name: name of the operation
        profile: how many examples
        seed: seed of the examples; None always draws the same ones
        send: called with the progress
        strict: whether to check everything that the kit checks of a backend, or only what `check_student` does
        timeout: processor seconds for one call; all calls together may take `BUDGET` times as many
    """
    result = Result(name, "failed", submission.own.get(name, ""))
    if name in submission.borrowed:
        result.status, result.message = "borrowed", submission.borrowed[name]
        return result
    if name in submission.signatures:
        result.message = submission.signatures[name]
        return result
    assert submission.backend is not None
    watch = Watch(submission, result, send, profile.max_examples, strict, BUDGET * timeout)
    began = time.monotonic()
    try:
        if name in STRATEGIES or name in FUNCTIONS:
            watch.meter(submission.backend, name)
            check_operation(submission.backend, name, profile, check_case=watch.check, seed=seed)
            if name in FUNCTIONS and name not in OPERATIONS:
                check_gradient(name.removesuffix("_backward"))
        else:
            with watch.calling():
                CHECKS[name](submission.backend, profile)
        result.status, result.example, result.message = PASSED, None, ""
    except Disagreement as error:
        watch.failed(error)
    except Enough:
        result.remarks.append("the example could be smaller: the calls were too slow to search for one")
    except BaseException as error:  # also SystemExit and MemoryError, and Hypothesis if answers change
        if result.example is None:
            result.message, result.at = short(f"raised {type(error).__name__}: {said(error)}"), submission.where(error)
    if result.status == PASSED and watch.foreign:
        result.status, result.message = "borrowed", short(f"calls {', '.join(sorted(watch.foreign))}")
    if result.status == PASSED and watch.left_out:
        result.remarks.append(
            f"slow: {result.examples} of {result.examples + watch.left_out} examples were tried, within "
            f"{watch.budget:g} s of processor time"
        )
    result.remarks += sorted(submission.overlooked.get(name, ()))
    result.remarks += [f"uses {name}" for name in sorted(watch.libraries)]
    result.seconds = round(time.monotonic() - began, 3)
    return result


class Enough(BaseException):
    """Ends the search for the smallest failing example. Not an `Exception`: Hypothesis must not catch it."""


class Watch:
    """Observes every example of one operation: counts, reports, and keeps the smallest that fails.

    Attributes:
        budget, spent: processor seconds of the student's own calls, allowed and used; waiting counts a little
        left_out: examples not tried, since the budget would not have sufficed for all kinds of numbers
    """

    def __init__(
        self, submission: Submission, result: Result, send: Send, examples: int, strict: bool, budget: float
    ) -> None:
        self.submission, self.result, self.send, self.strict = submission, result, send, strict
        self.budget, self.spent, self.left_out, self.seen = budget, 0.0, 0, 0
        backend = submission.backend
        kinds = len(dtypes(backend)) if backend is not None else 1
        self.planned = kinds * sum(max(1, int(share * examples)) for _, share in MOODS.values())
        self.foreign: set[str] = set()
        self.libraries: set[str] = set()
        self.failing = self.metered = False

    @contextlib.contextmanager
    def calling(self) -> Iterator[None]:
        """Count the time spent inside as the student's."""
        processor, clock = time.process_time(), time.monotonic()
        self.send(kind="call", processor=processor)
        try:
            yield
        finally:
            self.spent += max(time.process_time() - processor, (time.monotonic() - clock) / WAITING)
            self.send(kind="back")

    def meter(self, backend: Backend, name: str) -> None:
        """Count only the operation's time, if its method can be replaced on the backend's instance."""
        if name in FUNCTIONS:
            return
        own = getattr(backend, name)

        def metered(*arrays: Any, **numbers: Any) -> Any:
            with self.calling():
                return own(*arrays, **numbers)

        with contextlib.suppress(AttributeError):  # a class with __slots__: whole examples are then its time
            setattr(backend, name, metered)
            self.metered = True

    def check(self, backend: Backend, case: Case) -> None:
        """Replaces `check_case`."""
        self.seen += 1
        if self.failing:
            if self.spent > self.budget:
                raise Enough
        elif not self.strict and not asked(case):
            return
        elif self.spent > self.budget * (0.2 + 0.8 * self.seen / self.planned):  # each kind of numbers gets a share
            self.left_out += 1
            return
        else:
            self.result.examples += 1
        self.send(kind="example", examples=self.result.examples, call=short(repr(case)))
        try:
            with contextlib.nullcontext() if self.metered else self.calling():
                (check_case if self.strict else check_student)(backend, case)
        except BaseException as error:
            self.failing = True
            self.failed(error)
            self.send(kind="failing", result=asdict(self.result))
            raise
        if self.result.examples <= WATCHED_CALLS and not self.failing:
            self.look(backend, case)

    def failed(self, error: BaseException) -> None:
        """Record a failing example; Hypothesis shrinks them, so the last one is the smallest."""
        result, cause = self.result, error.__cause__ or error
        result.status = "failed"
        result.at = self.submission.where(cause)
        if isinstance(error, Disagreement):
            result.example = describe(error) or result.example
            result.message = short((error.what or said(error)).rstrip(": "))
        else:
            result.message = short(f"raised {type(error).__name__}: {said(error)}")
        if isinstance(cause, NotImplementedError) or result.message == NOTHING:
            result.status = "stub"

    def look(self, backend: Backend, case: Case) -> None:
        """Repeat a call and record whose functions it enters: those of other backends and libraries."""
        first = backend.devices[0]
        arrays = each(case.arrays, lambda array: backend.to_device(array, first))
        others = {point.value.partition(":")[0].partition(".")[0] for point in registry.installed().values()}

        def notice(frame: Any, event: str, argument: Any) -> None:
            if event == "call":
                if self.submission.holds(frame.f_code.co_filename):
                    return
                module, function = frame.f_globals.get("__name__") or "", frame.f_code.co_name
            elif event == "c_call":
                module, function = getattr(argument, "__module__", None) or "", argument.__name__
            else:
                return
            top = module.partition(".")[0]
            if top in others:
                self.foreign.add(f"{module}.{function}")
            elif top and top not in sys.stdlib_module_names and top not in KNOWN:
                self.libraries.add(top)

        sys.setprofile(notice)
        try:
            method(backend, case.operation)(*arrays.values(), **case.numbers)
        finally:
            sys.setprofile(None)
