"""The child process in which a submission is imported and its operations are called.

It reads one JSON line a question from its standard input and writes JSON lines to what was its standard output. What
the submission prints goes elsewhere and is counted. The first line is the submission and the settings; each further
one is the name of an operation. Answers: ``found`` once, then for each operation any number of ``busy`` and
``failing`` lines, and one ``result``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import IO, Any

from hypothesis import settings

from minialex.backend import registry
from minialex.backend.operations import FUNCTIONS, OPERATIONS, method
from minialex.backend.protocol import Backend
from minialex.conformance.case import Case, each
from minialex.conformance.checks import CHECKS, NOTHING, PROFILES, check_case, check_operation
from minialex.conformance.compare import Disagreement
from minialex.conformance.own import check_gradient
from minialex.conformance.strategies import STRATEGIES
from minialex.course.grading.result import PASSED, Result, describe
from minialex.course.grading.submission import ORDER, Ambiguous, Source, Submission, load

KNOWN = ("numpy", "minialex", "numba", "llvmlite", "cupy", "cupy_backends")
"""Libraries that a submission may call without a remark."""

WATCHED_CALLS = 5
"""How many calls of an operation are made once more while every Python function that they enter is looked at."""

Send = Callable[..., None]


class PrintedText:
    """Takes the place of the standard output and error, drains what is printed and keeps the beginning."""

    KEPT = 200

    def __init__(self) -> None:
        self.count, self.first = 0, b""
        out, into = os.pipe()
        for descriptor in (1, 2):
            os.dup2(into, descriptor)
        os.close(into)
        threading.Thread(target=self._drain, args=(out,), daemon=True).start()

    def _drain(self, out: int) -> None:
        while chunk := os.read(out, 1 << 16):
            self.count += len(chunk)
            self.first += chunk[: self.KEPT - len(self.first)]

    def remark(self) -> list[str]:
        """What was printed since the last time, in words."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # the submission may have closed or replaced them
                stream.flush()
        time.sleep(0.01)  # the thread empties the pipe
        count, first = self.count, self.first
        self.count, self.first = 0, b""
        line = first.decode(errors="replace").splitlines()[0] if first else ""
        return [f"printed {count:,} bytes, beginning {line[:60]!r}"] if count else []


def private_streams() -> tuple[IO[str], IO[str]]:
    """The streams to and from the parent, out of the submission's reach; its own input is empty."""
    questions, answers = os.fdopen(os.dup(0), "r", encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return questions, answers


def end_with_parent() -> None:
    """End this process when its parent has ended, however that came about and whatever the submission is doing."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def limit_memory(gibibytes: float) -> None:
    """Let allocations beyond a limit fail, on systems that can: the student's MemoryError, not everybody's."""
    if gibibytes and sys.platform == "linux":
        import resource

        most = int(gibibytes * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))


def main() -> None:
    """Answer the parent until it ends."""
    questions, answers = private_streams()
    printed = PrintedText()

    def send(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    end_with_parent()
    task = json.loads(questions.readline())
    limit_memory(task["memory"])
    try:
        submission = load(Source(**task["source"]))
    except Ambiguous as error:
        send(kind="found", usage=str(error))
        return
    names = [name for name in ORDER if name in submission.own or name in submission.borrowed]
    names += [name for name in submission.own if name not in ORDER]
    whole = not submission.completed and not submission.faults
    send(
        kind="found",
        names=(["signatures", *names, "compile_step"] if whole and set(ORDER) <= set(submission.own) else names),
        places=submission.own,
        faults=submission.faults,
        completed=submission.completed,
        remarks=printed.remark(),
    )
    profile = settings(PROFILES["ci"], max_examples=task["examples"])
    for line in questions:
        result = grade(submission, json.loads(line)["operation"], profile, task["seed"], send)
        result.remarks += printed.remark()
        send(kind="result", result=asdict(result))


def grade(submission: Submission, name: str, profile: settings, seed: int | None, send: Send) -> Result:
    """Check one operation."""
    result = Result(name, "failed", submission.own.get(name, ""))
    if name in submission.borrowed:
        result.status, result.message = "borrowed", submission.borrowed[name]
        return result
    if name in submission.signatures:
        result.message = submission.signatures[name]
        return result
    assert submission.backend is not None
    watch = Watch(submission, result, send)
    began = time.monotonic()
    try:
        if name in STRATEGIES or name in FUNCTIONS:
            check_operation(submission.backend, name, profile, check_case=watch.check, seed=seed)
            if name in FUNCTIONS and name not in OPERATIONS:
                check_gradient(name.removesuffix("_backward"))
        else:
            send(kind="busy", examples=0, call=name)
            CHECKS[name](submission.backend, profile)
        result.status, result.example, result.message = PASSED, None, ""
    except Disagreement as error:
        watch.failed(error)
    except BaseException as error:  # SystemExit and MemoryError too; and Hypothesis, if answers change
        if result.example is None:
            result.message, result.at = f"raised {type(error).__name__}: {error}", submission.where(error)
    if result.status == PASSED and watch.foreign:
        result.status, result.message = "borrowed", f"calls {', '.join(sorted(watch.foreign))}"
    result.remarks += [f"uses {name}" for name in sorted(watch.libraries)]
    result.seconds = round(time.monotonic() - began, 3)
    return result


class Watch:
    """Looks at every example of one operation: counts, reports, and keeps the smallest that fails."""

    def __init__(self, submission: Submission, result: Result, send: Send) -> None:
        self.submission, self.result, self.send = submission, result, send
        self.foreign: set[str] = set()
        self.libraries: set[str] = set()
        self.failing = False

    def check(self, backend: Backend, case: Case) -> None:
        """In the place of `check_case`."""
        if not self.failing:
            self.result.examples += 1
        self.send(kind="busy", examples=self.result.examples, call=repr(case))
        try:
            check_case(backend, case)
        except BaseException as error:
            self.failing = True
            self.failed(error)
            self.send(kind="failing", result=asdict(self.result))
            raise
        if self.result.examples <= WATCHED_CALLS and not self.failing:
            self.look(backend, case)

    def failed(self, error: BaseException) -> None:
        """Note a failing example; Hypothesis makes them smaller, so that the last one is the smallest."""
        result, cause = self.result, error.__cause__ or error
        result.status = "failed"
        result.at = self.submission.where(cause)
        if isinstance(error, Disagreement):
            result.example = describe(error) or result.example
            result.message = (error.what or str(error)).rstrip(": ")
        else:
            result.message = f"raised {type(error).__name__}: {error}"
        if isinstance(cause, NotImplementedError) or result.message == NOTHING:
            result.status = "stub"

    def look(self, backend: Backend, case: Case) -> None:
        """Make a call once more and note whose functions it enters: other backends', and other libraries'."""
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


if __name__ == "__main__":
    main()
