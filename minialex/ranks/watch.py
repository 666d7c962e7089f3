"""Waits for other ranks, but never for ever: a dead or hanging rank is named, one that is only busy is waited for.

MPI itself waits as long as it takes. So every wait here polls a nonblocking request, and if one takes long, a roll
call goes out: a thread on every rank answers with what the rank is doing. A rank that stays silent is lost.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from minialex.errors import ConfigurationError, MinialexError, RankLost
from minialex.screen.streams import complain

if TYPE_CHECKING:
    from mpi4py.MPI import Comm, Request

TIMEOUT = 30.0
"""Seconds without a sign of life after which a rank counts as lost."""

ASK, HERE = 1, 2  # tags of messages
WORDS = 128  # bytes in an answer
WAITING = "waiting"

_doing = "computing"
_beside = threading.local()


def beside() -> None:
    """From now on this thread runs beside another one, and roll calls are answered with what that one is doing."""
    _beside.on = True


@contextmanager
def doing(what: str) -> Iterator[None]:
    """Tell ranks that wait for this process that, within the block, it is doing something that may take long."""
    global _doing  # noqa: PLW0603 - a process does one thing
    if getattr(_beside, "on", False):
        yield
        return
    before, _doing = _doing, what
    try:
        yield
    finally:
        _doing = before


class Watch:
    """One rank's knowledge of which others are alive.

    Args:
        comm: communicator of all ranks; MPI was initialised with THREAD_MULTIPLE
        timeout: seconds without a sign of life after which a rank counts as lost

    Raises:
        ConfigurationError: If the MPI library cannot be called from two threads.
    """

    def __init__(self, comm: Comm, timeout: float = TIMEOUT) -> None:
        from mpi4py import MPI

        if MPI.Query_thread() != MPI.THREAD_MULTIPLE:
            raise ConfigurationError("this MPI library has no MPI_THREAD_MULTIPLE, which ranks need: use another")
        self.mpi, self.timeout = MPI, timeout
        self.roll = comm.Dup()
        self.roll.Set_errhandler(MPI.ERRORS_RETURN)
        self.rank, self.size = comm.rank, comm.size
        self.names = [f"rank {rank}" for rank in range(self.size)]
        self._sending = threading.Lock()
        self._sent: list[tuple[Request, NDArray[np.uint8]]] = []  # MPI still reads these arrays
        self._asked: dict[int, tuple[Request, NDArray[np.uint8]]] = {}
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._answer, daemon=True, name="roll call")
        self._thread.start()
        own = _line(f"rank {self.rank} (pid {os.getpid()} on {platform.node()})")
        every = np.empty((self.size, WORDS), np.uint8)
        self.wait(self.roll.Iallgather(own, every))
        self.names = [_text(row) for row in every]

    def wait(self, request: Request) -> None:
        """Wait for a nonblocking request; if a rank that it needs is lost, say which and end all ranks."""
        with doing(WAITING):
            began = asked = time.monotonic()
            pause, tell = 0.0, self.timeout / 2
            while not self._done(request):
                now = time.monotonic()
                if now - asked > self.timeout / 2:
                    tell *= 2 if self._call(request, self.timeout / 2, now - began, now - began >= tell) else 1
                    asked = time.monotonic()
                time.sleep(pause)
                pause = min(pause + 2e-5, 1e-3)

    def _done(self, request: Request) -> bool:
        try:
            return bool(request.Test())
        except self.mpi.Exception as error:  # final: tested again, a broken request would claim to be done
            silent, _ = self._ask(min(self.timeout / 2, 5.0), lambda: False)
            what = " ".join(str(error).split())
            lost = self._list(silent) if silent else f"{self.names[self.rank]} cannot reach the others"
            self.end(RankLost(f"{lost}: {what}"))

    def _call(self, request: Request, patience: float, waited: float, tell: bool) -> bool:
        """Call the roll: end all ranks if one is silent, else say which ones all wait for, if it is time to."""
        silent, answers = self._ask(patience, lambda: self._done(request))
        if silent is None:
            return False
        if silent:
            verb = "does" if len(silent) == 1 else "do"
            seconds = f"{waited + patience:.0f} s"
            self.end(RankLost(f"{self._list(silent)} {verb} not answer for {seconds}"), [*answers, self.rank])
        busy = {rank: doing for rank, doing in answers.items() if doing != WAITING}
        if tell and min({*range(self.size)} - {*busy}) == self.rank:  # one of the waiting ranks says it
            who = "; ".join(f"{self.names[rank]}: {doing}" for rank, doing in sorted(busy.items())[:3])
            complain("warning", f"waiting {waited:.0f} s for {who or 'the network'}")
        return tell

    def _ask(self, patience: float, done: Callable[[], bool]) -> tuple[list[int] | None, dict[int, str]]:
        """The ranks that do not answer (None if the wait ended meanwhile), and what the others are doing."""
        for rank in {*range(self.size)} - {self.rank, *self._asked}:  # a rank that owes an answer is not asked again
            box = np.zeros(WORDS, np.uint8)
            try:
                self._asked[rank] = self.roll.Irecv(box, rank, HERE), box
                self._send(_line("?"), rank, ASK)
            except self.mpi.Exception:
                pass  # as good as silent
        answers: dict[int, str] = {}
        end = time.monotonic() + patience
        while self._asked and time.monotonic() < end:
            for rank, (request, box) in [*self._asked.items()]:
                try:
                    if request.Test():
                        answers[rank] = _text(box)
                        del self._asked[rank]
                except self.mpi.Exception:
                    pass
            time.sleep(0.01)
        silent = sorted({*range(self.size)} - {self.rank, *answers})
        if silent and done():
            return None, answers
        return silent, answers

    def _answer(self) -> None:
        """The thread's loop: answer every roll call."""
        word, status = np.empty(WORDS, np.uint8), self.mpi.Status()
        while not self._leaving.is_set():
            try:
                if self.roll.Iprobe(self.mpi.ANY_SOURCE, ASK, status):
                    self.roll.Recv(word, status.source, ASK)
                    self._send(_line(_doing), status.source, HERE)
                    continue
            except self.mpi.Exception:
                pass  # the rank that asked is gone
            self._leaving.wait(0.05)

    def close(self) -> None:
        """Stop answering: all ranks are about to end."""
        self._leaving.set()
        self._thread.join()

    def _send(self, words: NDArray[np.uint8], rank: int, tag: int) -> None:
        with self._sending:  # two threads send
            self._sent = [(request, buffer) for request, buffer in self._sent if not request.Test()]
            self._sent.append((self.roll.Isend(words, rank, tag), words))

    def _list(self, ranks: Sequence[int]) -> str:
        few = ", ".join(self.names[rank] for rank in ranks[:3])
        return few + (f" and {len(ranks) - 3} more" if len(ranks) > 3 else "")

    def end(self, error: MinialexError, present: Sequence[int] = (), code: int | None = None) -> NoReturn:
        """Say what happened and end all ranks, wherever they are; nothing waits for anything.

        Args:
            error: reported by the first rank that gets here; the others wait long enough to be ended silently
            present: the ranks that may report it; empty: all
            code: the exit code; None: the error's
        """
        place = sorted(present).index(self.rank) if present else self.rank
        time.sleep(0.3 * min(place, 10))
        complain("error", str(error))
        sys.stdout.flush()
        time.sleep(0.2)  # lets mpiexec pass it on: it ends at once when it hears of the abort
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # silences the library's own message
        code = error.exit_code if code is None else code
        self.mpi.COMM_WORLD.Abort(code)
        os._exit(code)


def _line(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode()[: WORDS - 1].ljust(WORDS, b"\0"), np.uint8).copy()


def _text(line: NDArray[np.uint8]) -> str:
    return line.tobytes().rstrip(b"\0").decode(errors="replace")
