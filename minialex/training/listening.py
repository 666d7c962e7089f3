"""Output to readers that may disappear: a pipe whose reader ended, a closed terminal, a log on a full disk."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from minialex.data import DataSet
from minialex.engine.session import Session
from minialex.errors import MinialexError


class Listener:
    """The events that training reports; every method does nothing here, and may be overridden."""

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        """Training has ended or failed."""

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        """Training starts or continues at `step`."""

    def preparing(self, what: str, done: int, total: int, unit: str) -> None:
        """The backend prepares something before it can compute: see `minialex.backend.hearing.Tell`."""

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        """A step is done: its loss, and the fraction of its batch that was classified correctly."""

    def validating(self, done: int, images: int) -> None:
        """The number of validation images done so far."""

    def recorded(self, record: Mapping[str, Any]) -> None:
        """The metrics have a new record, of some steps or of an epoch's validation."""

    def note(self, message: str) -> None:
        """What the run starts from, if not from random weights."""

    def warning(self, message: str) -> None:
        """A warning from a guard, or from resuming."""


class Unfailing(Listener):
    """A listener whose output may fail: training then continues without it, and says so on standard error.

    Args:
        listener: receives the events until then
    """

    def __init__(self, listener: Listener) -> None:
        self._listener: Listener | None = listener

    def __enter__(self) -> Listener:
        self._tell("__enter__")
        return self

    def __exit__(self, *error: object) -> None:
        self._tell("__exit__", *error)

    def _tell(self, what: str, *told: Any) -> None:
        if self._listener is not None and not reached(lambda: getattr(self._listener, what)(*told)):
            self._listener = None

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        self._tell("begin", session, data, steps_per_epoch, step)

    def preparing(self, what: str, done: int, total: int, unit: str) -> None:
        self._tell("preparing", what, done, total, unit)

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        self._tell("stepped", step, loss, top1, rate)

    def validating(self, done: int, images: int) -> None:
        self._tell("validating", done, images)

    def recorded(self, record: Mapping[str, Any]) -> None:
        self._tell("recorded", record)

    def note(self, message: str) -> None:
        self._tell("note", message)

    def warning(self, message: str) -> None:
        self._tell("warning", message)


def reached(tell: Callable[[], object]) -> bool:
    """Report something, and return whether that succeeded; if not, standard output is discarded from now on."""
    try:
        tell()
    except MinialexError:
        raise
    except (OSError, SystemExit) as error:  # rich ends the process if it finds a broken pipe
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        reason = getattr(error, "strerror", None) or "its reader has gone"
        message = f"warning: nothing can be shown any more ({reason}); work continues without it"
        with contextlib.suppress(OSError, ValueError):
            if isinstance(error, SystemExit) or not _prints(message):
                print(message, file=_itself(sys.stderr), flush=True)
        return False
    return True


def _itself(stream: Any) -> Any:
    """The original stream, which rich replaces while it shows a bar."""
    return getattr(stream, "rich_proxied_file", stream)


def _prints(message: str) -> bool:
    """Print on standard output; if it is broken, redirect it to nowhere, since its buffer would fail again."""
    stream = _itself(sys.stdout)
    try:
        print(message, file=stream, flush=True)
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        return False
    return True
