"""Robust streams behind standard output and standard error, whatever is written and whatever reads them."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
import warnings
from typing import TextIO

from minialex.screen.formats import LIKENESS, plain


class Outlet(io.FileIO):
    """A standard stream that may end before the program does: its reader is gone, or its disk is full.

    Later output is dropped, so that losing the output does not lose the work.

    Attributes:
        lost: why lines were dropped; None if none were
        needed: whether the output is the command's purpose; if not, its loss is reported at once and is no failure
    """

    lost: OSError | None = None
    needed = True

    def write(self, data: object) -> int:
        """Write bytes, or drop them."""
        if self.lost is None:
            try:
                return super().write(data)  # type: ignore[arg-type]
            except OSError as error:
                self.lost = error
                if not self.needed:
                    what = "nothing can be shown any more"
                    complain("warning", f"{what} ({error.strerror}); work continues without it")
        return memoryview(data).nbytes  # type: ignore[arg-type]


def take_over() -> None:
    """Put `Outlet` below standard output and standard error, and print warnings and log records in our own format.

    Characters that the terminal's or file's encoding lacks are replaced. A stream that was closed from the start stays
    silent: its descriptor is occupied, lest the next file opened get it, and with it what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):  # closed from the start, or replaced by a caller
            continue
        stream.reconfigure(errors=LIKENESS)
        if type(getattr(stream.buffer, "raw", stream.buffer)) is io.FileIO:  # a Windows console is not a file
            outlet = Outlet(stream.fileno(), "wb", closefd=False)
            ours = io.TextIOWrapper(
                outlet if type(stream.buffer) is io.FileIO else io.BufferedWriter(outlet),  # python -u has no buffer
                stream.encoding, LIKENESS, line_buffering=stream.line_buffering, write_through=stream.write_through,
            )  # fmt: skip
            setattr(sys, name, ours)
    warnings.showwarning = _show
    logging.lastResort = _Lines(logging.WARNING)


def lost_output() -> OSError | None:
    """Why lines on standard output were lost; None if none were, or if the reader has gone and wants no more."""
    if sys.stdout is None:
        return None
    with contextlib.suppress(ValueError):  # it was closed
        sys.stdout.flush()
    outlet = _outlet()
    error = outlet.lost if outlet is not None and outlet.needed else None
    return None if error is None or error.errno in (errno.EPIPE, errno.EIO) else error


def go_on_without_output() -> None:
    """From now on, the work matters more than its output: losing lines is no failure."""
    outlet = _outlet()
    if outlet is not None:
        outlet.needed = False


def _outlet() -> Outlet | None:
    buffer = getattr(sys.stdout, "buffer", None)
    raw = getattr(buffer, "raw", buffer)
    return raw if isinstance(raw, Outlet) else None


def complain(kind: str, message: str) -> None:
    """Print one line on standard error, such as ``error: …`` or ``warning: …``."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):  # nothing reads it any more
            sys.stderr.write(f"{kind}: {plain(message)}\n")  # in one write: even a process killed next prints all of it
            sys.stderr.flush()


class _Lines(logging.Handler):
    """Prints log records without another handler, one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        complain("warning", record.getMessage())


def _show(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
    line: str | None = None,
) -> None:  # fmt: skip
    complain("warning", " ".join(str(message).split()))
