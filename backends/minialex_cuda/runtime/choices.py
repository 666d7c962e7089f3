"""Which cuDNN plan a convolution uses on this machine: chosen once, by timing, and kept on disk for later runs.

A plan decides the order in which a sum is added up, so which one is taken decides the last bits of the result. The
first choice for a convolution, a card and a version of cuDNN therefore stays: whoever comes later, another run or
another process of this one, takes it, quicker or not. Each is a small JSON file of its own, under its final name from
one moment to the next, which only one process can take; the others read what that one wrote. A file that cannot be read
stays, since another process may have used it, and is said; the choice is then made anew, under the next name.

``MINIALEX_CUDA_PLANS`` names another folder than the user's cache folder (one that several machines share, say), or is
``off``: then nothing is timed, and cuDNN's own first choice is taken.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Callable, Mapping
from itertools import count
from pathlib import Path
from typing import Any

VARIABLE, OFF = "MINIALEX_CUDA_PLANS", "off"
MOST_BYTES = 1 << 20
"""Of a file that is read: a choice has some hundred."""

logger = logging.getLogger("minialex.cuda")


def folder() -> Path | None:
    """Where choices are kept; None where the user wants none.

    Raises:
        RuntimeError: If there is no home folder, and nothing else is named.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return None if named.lower() == OFF else Path(named).expanduser().absolute()
    if os.name == "nt":
        cache = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (cache / "minialex" / "cuda").absolute()


def opened() -> Path | None:
    """That folder, made if need be; None, which is said, if it cannot be written."""
    try:
        found = folder()
        if found is not None:
            found.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".tmp-", dir=found) as place:
                _publish(Path(place) / "tried", {})  # some file systems cannot give a file two names
    except (OSError, RuntimeError) as error:
        logger.warning(
            "the choice of cuDNN's fastest plans cannot be kept on disk (%s), so none is timed: each convolution"
            " uses cuDNN's first, up to 1.6 times as slow on an H100. Set %s to a writable folder, or %s.",
            error, VARIABLE, OFF,
        )  # fmt: skip
        return None
    return found


def finding() -> str:
    """What is kept and where, in words, for ``minialex doctor``."""
    try:
        found = folder()
        if found is None:
            return f"{VARIABLE}={OFF}: convolutions use cuDNN's first plan, and none is timed"
        there = next(place for place in (found, *found.parents) if os.path.lexists(place))
        if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
            return f"cannot be kept in {found}: convolutions use cuDNN's first plan, and none is timed"
        kept = len(list(found.glob("*.json")))
    except (OSError, RuntimeError) as error:
        return f"cannot be kept on disk ({error}): convolutions use cuDNN's first plan, and none is timed"
    return f"{kept} convolution{'' if kept == 1 else 's'} timed before; the choices are in {found}"


def settled(where: Path, asked: Mapping[str, Any], choose: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The choice that holds from now on.

    Args:
        where: the folder
        asked: what it is for: plain numbers and texts
        choose: makes it where there is none yet; what it gives is kept with what was asked, unless another process was
            quicker, whose choice then is the answer

    Raises:
        OSError: If it cannot be written.
    """
    asked = json.loads(json.dumps(asked))
    name = re.sub(r"[^a-z0-9]+", "-", f"{asked.get('device', '')}-{asked.get('kind', '')}".lower()).strip("-")
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    made: dict[str, Any] | None = None
    for attempt in count():
        path = where / f"{name}-{digest}{f'.{attempt}' if attempt else ''}.json"
        if not path.exists():
            made = choose() if made is None else made
            _publish(path, {"asked": asked, **made})
        found = _read(path, asked)
        if found is not None:
            return found
    raise AssertionError


def _read(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        known = path.stat()
        if not stat.S_ISREG(known.st_mode) or known.st_size > MOST_BYTES:  # a pipe would be waited for
            raise ValueError(f"no file of at most {MOST_BYTES:,} bytes")
        found = json.loads(path.read_text(encoding="utf-8"))
        note = found.get("note", "") if isinstance(found["plan"], str) else found["note"]
        if found["asked"] == asked and isinstance(found["plan"], str | None) and isinstance(note, str):
            return dict(found)
        reason = "it belongs to another version or device"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    logger.warning("%s is damaged (%s): cuDNN's plans are timed again; remove the file", path, reason)
    return None


def _publish(path: Path, choice: Mapping[str, Any]) -> None:
    """Put a file under its name, whole, unless there is one by now; others may read it, where the user lets them."""
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(json.dumps(choice, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
