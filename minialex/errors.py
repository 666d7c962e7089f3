"""Errors that a user can cause or fix, each with the exit code of the command line.

A message is one line: what was wrong, where, and what to do. The command line prints it after ``error:``, without a
traceback (unless ``--debug``); a library user catches `MinialexError` or one of its subclasses.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class MinialexError(Exception):
    """The base class of all errors that minialex raises on purpose."""

    exit_code = 2


class ConfigurationError(MinialexError, ValueError):
    """An invalid recipe, option or argument (exit code 2)."""

    exit_code = 2


class DeviceMismatch(MinialexError):
    """An operation was given arrays on different devices: a copy was forgotten (exit code 2)."""

    exit_code = 2


class BackendUnavailable(MinialexError):
    """A backend that is installed but cannot run here, or that breaks the protocol (exit code 2)."""

    exit_code = 2


class DataError(MinialexError):
    """A data set, image or archive that is missing, damaged or not what it claims to be (exit code 3)."""

    exit_code = 3


class DataNotFound(DataError):
    """A named data set is in none of the usual places: nothing is damaged, it was not downloaded (exit code 3)."""

    exit_code = 3


class CheckpointError(MinialexError):
    """A checkpoint or weights file that is missing, damaged or from another network (exit code 4)."""

    exit_code = 4


class NumericalError(MinialexError):
    """Non-finite values (exit code 5)."""

    exit_code = 5


class ResourceError(MinialexError):
    """Not enough memory or disk, or a device that failed (exit code 6)."""

    exit_code = 6


class RankLost(ResourceError):
    """One of the processes that train together died, hung or failed (exit code 6)."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known word with these initials or the closest one, or an empty string."""
    words = list(known)
    initials = [name for name in words if "".join(part[:1] for part in re.split("[-_]", name)) == word]
    close = initials or difflib.get_close_matches(word, words, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""
