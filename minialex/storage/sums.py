"""SHA-256 of a folder's own files, in a file ``SHA256SUMS`` beside them, in the format of ``sha256sum``.

A file that is not listed is not checked: to change a listed file on purpose, delete its line.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from minialex.errors import CheckpointError
from minialex.storage import atomic

SUMS = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


def write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files and their sums; whenever this is stopped, the files that exist pass `check`.

    Args:
        folder: must exist
        files: contents by name, written in this order

    Raises:
        ResourceError, ConfigurationError: as in `atomic.translate_os_errors`
    """
    known = _listed(folder)
    with atomic.translate_os_errors(folder / SUMS):
        before = {name: known.get(name, _found(folder / name)) for name in files}
    after = {name: (hashlib.sha256(data).hexdigest(),) for name, data in files.items()}
    _write(folder, {**known, **{name: (*before[name], *after[name]) for name in files}})  # both count until all is done
    for name, data in files.items():
        atomic.write_bytes(folder / name, data)
    if any(before.values()):
        _write(folder, {**known, **after})


def check(path: Path) -> None:
    """Verify that a file is unchanged, if it is listed.

    Raises:
        CheckpointError: it is missing or has changed
        ConfigurationError: it is not readable
    """
    listed = _listed(path.parent).get(path.name)
    if listed is None:
        return
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise atomic.unreadable(path, error) from error
    if digest not in listed:
        raise CheckpointError(
            f"{str(path)!r} is damaged or was edited: its SHA-256 is not the one in {SUMS}. Restore it from a copy; if "
            f"you edited it on purpose, delete its line in {SUMS}"
        )


def _listed(folder: Path) -> dict[str, tuple[str, ...]]:
    path = folder / SUMS
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise atomic.unreadable(path, error) from error
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise CheckpointError(f"{str(path)!r} is damaged: {line[:80]!r} is not a line of sha256sum; delete it")
        found[match[2]] = (*found.get(match[2], ()), match[1])
    return found


def _found(path: Path) -> tuple[str, ...]:
    """The sum of a file that exists but is not listed."""
    return (hashlib.sha256(path.read_bytes()).hexdigest(),) if path.is_file() else ()


def _write(folder: Path, listed: Mapping[str, tuple[str, ...]]) -> None:
    lines = (f"{digest}  {name}\n" for name, digests in listed.items() for digest in dict.fromkeys(digests))
    atomic.write_text(folder / SUMS, "".join(lines))
