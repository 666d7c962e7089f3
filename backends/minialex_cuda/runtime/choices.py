"""Which cuDNN plan a convolution uses on this machine: chosen once, by timing, and kept on disk for later runs.

A plan fixes the order of summation, so the choice of plan decides the last bits of the result. The first choice for a
convolution, a GPU model and a cuDNN version is therefore permanent: later runs, and other processes of this run, use
it, faster or not. Each choice is a small JSON file, which appears under its final name atomically. Only one process can
create it; the others read what that one wrote. An unreadable file stays, since another process may have used it, and a
notice reports it; a new choice is then made under the next name.

``MINIALEX_CUDA_PLANS`` names a folder other than the user's cache folder (one that several machines share, say), or is
``off``: then nothing is timed, and cuDNN's own first choice is used.
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
"""The largest file that is read, in bytes; a choice takes a few hundred."""

logger = logging.getLogger("minialex.cuda")


def folder() -> Path | None:
    """Where choices are kept; None if the user wants none.

    Raises:
        RuntimeError: If there is no home directory and no other folder is named.
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
    """That folder, created if needed; None, with a notice, if it is not writable."""
    try:
        found = folder()
        if found is not None:
            found.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".tmp-", dir=found) as place:
                _publish(Path(place) / "tried", {})  # some file systems have no hard links
    except (OSError, RuntimeError) as error:
        logger.warning(
            "the choice of cuDNN's fastest plans cannot be kept on disk (%s), so none is timed: each convolution"
            " uses cuDNN's first, up to 1.6 times as slow on an H100. Set %s to a writable folder, or %s.",
            error, VARIABLE, OFF,
        )  # fmt: skip
        return None
    return found


def finding() -> str:
    """A text on what is kept and where, for ``minialex doctor``."""
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
        asked: what the choice is for, as plain numbers and texts
        choose: makes the choice if there is none yet; its result is stored along with `asked`, unless another process
            was faster, whose choice is then returned

    Raises:
        OSError: If the choice cannot be written.
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
        if not stat.S_ISREG(known.st_mode) or known.st_size > MOST_BYTES:  # reading a pipe would block
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
    """Publish a complete file under its name, unless one exists by now; others may read it if the umask permits."""
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
