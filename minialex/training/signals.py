"""Stopping a run gracefully: at the first signal, the trainer finishes its step, saves and ends."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minialex.ranks.group import Group

EXIT_CODES = {"SIGTERM": 75, "SIGHUP": 75, "SIGXCPU": 75, "SIGUSR1": 75, "Ctrl-C": 130}
"""75: "temporary failure", safe to run again."""


class StopRequest:
    """Within its block, SIGTERM and Ctrl-C set `requested` instead of ending the process.

    So do SIGHUP (the terminal was closed, a connection broke) and SIGXCPU (a limit on processor time), where they
    exist; an ignored one stays ignored, like SIGHUP under ``nohup``. A Ctrl-C after any request raises
    `KeyboardInterrupt` at once; further other signals change nothing. The previous handlers are restored at the end of
    the block. Python lets only the main thread handle signals: in another one (a notebook's worker) the block does
    nothing.

    Args:
        more: names of other signals that should request a stop, too

    Attributes:
        requested: str or None
            ``"Ctrl-C"`` or the name of the signal, whichever came first.

    Examples:
        >>> with StopRequest() as stop:
        ...     for step in range(3):
        ...         if stop.requested:
        ...             break
    """

    def __init__(self, *more: str) -> None:
        self._names = ("SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU", *more)
        self.requested: str | None = None
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """The code with which the process should exit: 130 after Ctrl-C, 75 after another signal, else 0."""
        return EXIT_CODES[self.requested] if self.requested else 0

    def among(self, group: Group) -> str | None:
        """The request that this rank or another got: all ranks of a group call this equally often."""
        first = next(filter(None, group.exchange(self.requested)), None)
        self.requested = self.requested or first
        return first

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for name in self._names:
                number = getattr(signal, name, None)  # Windows lacks some
                if number is not None and (number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN):
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked worker should end, as if this class did not exist
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif number == signal.SIGINT and self.requested:
            raise KeyboardInterrupt
        elif not self.requested:
            self.requested = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
