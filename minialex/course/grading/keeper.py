"""The warm process between the grader and submissions: it imports everything once, and forks for each submission.

It reads one task per line from its standard input and writes its messages, one JSON object per line, to its standard
output: ``busy`` while it works, a ``result`` per operation, and one ``graded`` at the end. Submissions run in
grandchildren (`guard`), from which three pipes lead back: their messages, how they ended, and what they print.
Everything that a submission starts is below this process, and ends with it: in a PID namespace of its own if the system
allows one, else as descendants that are searched for (Linux).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

from minialex.backend.operations import FUNCTIONS
from minialex.conformance.strategies import STRATEGIES
from minialex.course.grading import worker
from minialex.course.grading.result import BUDGET, UNFINISHED, WAITING, Result, read

LINE = 1 << 24  # bytes of a message; a longer one is garbage
PATIENCE = 600.0  # wall-clock seconds for our own work: drawing examples, the reference
BETWEEN = 0.1  # seconds between two messages that work continues
LINUX = sys.platform == "linux"
NEW_USER, NEW_PID, DIE_WITH_PARENT, ADOPT = 0x10000000, 0x20000000, 1, 36  # of sched.h and prctl.h


# ---- processes ------------------------------------------------------------------------------------------------


def control(option: int, value: int) -> None:
    """Set an attribute of this process (Linux)."""
    if LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def own_processes() -> None:
    """Make the next child the first process of a namespace, if the system allows it: nothing in it can outlive it, or
    see or signal anything outside."""
    libc = ctypes.CDLL(None)
    if not LINUX or libc.unshare(NEW_PID) == 0:
        return
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_USER | NEW_PID) == 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            with contextlib.suppress(OSError):
                Path("/proc/self", name).write_text(text)


def below(top: int) -> list[int]:
    """All descendants of a process."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat") if LINUX else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found: list[int] = []
    rest = [top]
    while rest:
        parent = rest.pop()
        rest += (children := [pid for pid, above in parents.items() if above == parent])
        found += children
    return found


def end_all(child: int, seconds: float = 30.0) -> None:
    """End a child and everything below this process: orphans are its children, too."""
    until = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)
    while time.monotonic() < until:  # something that forks faster than it is found would keep us busy for ever
        for pid in below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def guard(run: Callable[[], None], status: int) -> NoReturn:
    """In a child: run something in a grandchild, and write to a pipe how that ended.

    The submission's parent is a process that only waits: a signal to it ends the submission, and nothing else.
    """
    os.setsid()
    control(DIE_WITH_PARENT, signal.SIGKILL)
    control(ADOPT, 1)
    own_processes()
    first = os.fork()
    if first:
        os.close(status)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, 0)[0] != first:
                pass
        os._exit(0)
    control(DIE_WITH_PARENT, signal.SIGKILL)
    control(ADOPT, 1)
    child = os.fork()
    if child:
        while (ended := os.waitpid(-1, 0))[0] != child:
            pass
        os.write(status, str(os.waitstatus_to_exitcode(ended[1])).encode())
        os._exit(0)
    os.close(status)
    os.setpgid(0, 0)
    control(DIE_WITH_PARENT, signal.SIGKILL)
    try:
        run()
    finally:
        os._exit(1)  # no exit handlers run, neither ours nor theirs


# ---- a submission in a process --------------------------------------------------------------------------------


class Child:
    """A running submission; its messages are read, and it is ended when its time is up.

    Attributes:
        rubbish: number of bytes in its pipe that were not messages of ours
    """

    def __init__(self, task: dict[str, Any]) -> None:
        self.task, self.token, self.rubbish, self.read = task, secrets.token_hex(16), 0, b""
        self.processor, self.queued, self.since, self.calling, self.inside = 0.0, 0.0, time.monotonic(), True, 0
        self.limit, self.began = task["timeout"], self.since
        self.hears, say = os.pipe()
        self.status, tell = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                guard(lambda: self._run(say), tell)
            finally:
                os._exit(1)  # whatever happens, only one process continues
        os.close(say)
        os.close(tell)
        os.set_blocking(self.hears, False)

    def _run(self, say: int) -> None:
        """In the child: of this process's open files only the pipe is left, under an unpredictable number."""
        kept = os.dup2(say, random.SystemRandom().randrange(100, 200), inheritable=False)
        os.closerange(3, kept)
        os.closerange(kept + 1, 1 << 12)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        owner, token, write, number, dumps, leave = os.getpid(), self.token, os.write, os.getpid, json.dumps, os._exit

        def send(**message: Any) -> None:
            data = f"\n{token}{dumps(message)}\n".encode()
            if number() != owner:  # a submission forked, and both continue: only one may send
                leave(0)
            try:
                while data:
                    data = data[write(kept, data) :]
            except OSError:  # it was closed: nothing can be sent
                leave(CLOSED)

        worker.serve(self.task, send)
        os._exit(0)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield its messages, and as the last one how it ended: ``done``, ``ended`` with a code, or ``timeout``."""
        code: str | None = None
        until = 0.0
        while True:
            wait = [self.hears, self.status] if code is None else []
            ready = select.select([*wait, sys.stdin], [], [], 0.0 if code is not None else 0.05)[0]
            if sys.stdin in ready:
                raise EOFError  # the grader is gone
            if self.status in ready:
                code, until = os.read(self.status, 16).decode(errors="replace"), time.monotonic() + 1
            heard = self._heard()
            for message in heard or ():
                if message["kind"] == "done":
                    yield message
                    return
                self._follow(message)
                yield message
            # a process left behind may continue to write
            if code is not None and (heard is None or time.monotonic() > until):
                yield {"kind": "ended", "code": int(code) if code.lstrip("-").isdigit() else None}
                return
            if code is None and (over := self._over()):
                yield {"kind": "timeout", "text": over, "theirs": self.calling}
                return

    def _heard(self) -> list[dict[str, Any]] | None:
        """The messages that have arrived, or None: lines with the token; anything else is foreign, and counted."""
        try:
            chunk = os.read(self.hears, 1 << 20)
        except BlockingIOError:
            return None
        if not chunk:
            time.sleep(0.01)  # it has closed its end, but has not exited yet
            return None
        *lines, self.read = (self.read + chunk).split(b"\n")
        if len(self.read) > LINE:
            self.rubbish, self.read = self.rubbish + len(self.read), b""
        found = []
        for line in filter(None, lines):
            try:
                if not line.startswith(self.token.encode()):
                    raise ValueError
                message = json.loads(line[len(self.token) :])
                if not isinstance(message, dict) or message.get("kind") not in KINDS:
                    raise ValueError
                found.append(message)
            except (ValueError, RecursionError):
                self.rubbish += len(line)
        return found

    def _follow(self, message: dict[str, Any]) -> None:
        """Note whose time is running: the student's within a call and while importing, otherwise ours."""
        kind = message["kind"]
        if kind == "hello" and isinstance(message.get("pid"), int):
            self.inside = message["pid"]
        elif kind == "begin":
            self.began = time.monotonic() - self._queued()
            self.limit = self.task["timeout"] * (1 if message.get("operation") in SINGLE else BUDGET)
        if kind in ("call", "back", "found", "begin"):
            self.calling, self.since, self.processor = kind == "call", time.monotonic(), self._used()
            self.queued = self._queued()

    def _used(self) -> float:
        """Processor seconds that the submission's process has used so far."""
        with contextlib.suppress(OSError):
            return time.clock_gettime(~self.inside << 3 | 2) if self.inside and LINUX else 0.0
        return 0.0

    def _queued(self) -> float:
        """Seconds that it has waited for a processor so far, which do not count against the student."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            return int(Path(f"/proc/{self.inside}/schedstat").read_text().split()[1]) / 1e9 if self.inside else 0.0
        return 0.0

    def _over(self) -> str:
        """The limit that is exceeded, as text, if any."""
        clock = time.monotonic() - self.since - (self._queued() - self.queued)
        most = 2 * BUDGET * WAITING * self.task["timeout"] + PATIENCE
        if (
            time.monotonic() - self._queued() - self.began > most
        ):  # its own budget ends it before, unless it is meddled with
            self.calling = True
            return f"did not end within {most:g} s in all"
        if not self.calling:
            return f"the grader's own part took more than {PATIENCE:g} s" if clock > PATIENCE else ""
        if self._used() - self.processor > self.limit:
            return f"did not end within {self.limit:g} s of processor time"
        if clock > self.limit * WAITING:
            return f"did not end within {self.limit * WAITING:g} s by the clock"
        return ""

    def end(self) -> None:
        """End the process and everything that it started."""
        end_all(self.pid)
        os.close(self.hears)
        os.close(self.status)


CLOSED = 93  # exit code of a submission that closed the pipe
SINGLE = (*STRATEGIES, *FUNCTIONS)  # operations whose calls are timed one by one
KINDS = ("hello", "found", "begin", "example", "call", "back", "failing", "result", "done")


# ---- grading --------------------------------------------------------------------------------------------------


def grade(task: dict[str, Any], say: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Grade one submission.

    Args:
        task: ``source``, ``only`` (names or None), ``examples``, ``seed``, ``strict``, ``timeout``, ``memory``
        say: called with messages ``busy`` and ``result``

    Returns:
        ``usage``, or ``names`` that the submission has, ``faults``, ``completed``, ``remarks`` and ``results``.
    """
    found: dict[str, Any] = {}
    results: dict[str, Result] = {}
    while True:
        child = Child({**task, "done": list(results)})
        try:
            current, last = _follow(child, found, results, say)
        finally:
            child.end()
        if found.get("usage") or last["kind"] == "done":
            break
        if not found:
            fault = f"importing it {ended(last)}"
            found = {"names": [], "places": {}, "faults": [fault], "completed": True, "remarks": []}
            break
        wanted = found["names"] if task["only"] is None else task["only"]
        rest = [name for name in wanted if name in found["names"] and name not in results]
        if rest:
            if current is None:
                current = Result(rest[0], "crashed", message=f"before its first call, the submission {ended(last)}")
            results[current.operation] = current
            say({"kind": "result", "result": asdict(current)})
        if rest in ([], [current.operation if current else ""]):
            break
    return {**found, "results": [asdict(result) for result in results.values()]}


def _follow(
    child: Child, found: dict[str, Any], results: dict[str, Result], say: Callable[[dict[str, Any]], None]
) -> tuple[Result | None, dict[str, Any]]:
    """Listen until a child ends: the result of the operation in which it ended, if any, and its last message."""
    name, examples, call, failing = "", 0, "", None
    began, told, rubbish = time.monotonic(), 0.0, 0
    message: dict[str, Any] = {}
    for message in child.messages():
        kind = message["kind"]
        try:
            if kind == "found" and not found:
                found |= _found(message)
                if child.rubbish:
                    found.get("remarks", []).append(f"wrote {child.rubbish:,} bytes where only the grader writes")
            elif kind == "begin":
                name, examples, call, failing = str(message["operation"]), 0, "", None
                began, rubbish = time.monotonic(), child.rubbish
            elif kind == "example":
                examples, call = int(message["examples"]), str(message["call"])
            elif kind == "failing":
                failing = read(message["result"])
            elif kind == "result":
                result = read(message["result"])
                if result.operation != name or name in results:
                    raise ValueError
                if child.rubbish > rubbish:
                    result.status, result.example = "crashed", None
                    result.message = f"wrote {child.rubbish - rubbish:,} bytes where only the grader writes"
                results[name] = result
                say({"kind": "result", "result": asdict(result)})
                name = ""
        except (ValueError, TypeError, KeyError):
            child.rubbish += 1
        if kind in ("begin", "example") and time.monotonic() - told > BETWEEN:
            told = time.monotonic()
            say({"kind": "busy", "operation": name, "examples": examples})
    if not name or message["kind"] == "done":
        return None, message
    if message["kind"] == "timeout" and not message["theirs"]:
        status = UNFINISHED
    else:
        status = "out of time" if message["kind"] == "timeout" else "crashed"
    seconds = round(time.monotonic() - began, 3)
    if failing is not None and failing.operation == name:  # a fault was found, but shrinking it failed
        remark = f"the example could be smaller: looking for one {ended(message)}"
        return replace(failing, seconds=seconds, remarks=[*failing.remarks, remark]), message
    text = f"{ended(message)} in example {examples}" + (f": {call}" if call else "")
    place = str(found.get("places", {}).get(name, ""))
    return Result(name, status, place, examples, seconds, text), message


def _found(message: dict[str, Any]) -> dict[str, Any]:
    """The result of the import, if it is well formed.

    Raises:
        ValueError, KeyError: If it is not.
    """
    if "usage" in message:
        return {"usage": str(message["usage"])}
    found = {name: message[name] for name in ("names", "places", "faults", "completed", "remarks")}
    lists = [found["names"], found["faults"], found["remarks"]]
    if not isinstance(found["places"], dict) or not all(isinstance(part, list) for part in lists):
        raise ValueError
    if not all(isinstance(text, str) for part in lists for text in part):
        raise ValueError
    return found


def ended(message: dict[str, Any]) -> str:
    """How an unfinished child ended, as text."""
    if message["kind"] == "timeout":
        return str(message["text"])
    code = message["code"]
    if code == CLOSED:
        return "closed the pipe to the grader"
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"ended the process ({signal.Signals(-code).name})"
    return "ended the process" if code is None else f"ended the process (exit code {code})"


def main() -> None:
    """Grade one task after another until the input ends."""
    control(ADOPT, 1)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    with contextlib.suppress(EOFError, BrokenPipeError):
        questions = os.fdopen(0, "rb", buffering=0)  # no read-ahead: `select` must see what is there
        while task := questions.readline():
            say({"kind": "graded", **grade(json.loads(task), say)})
