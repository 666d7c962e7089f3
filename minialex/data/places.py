"""Where the files of named data sets are looked for."""

from __future__ import annotations

import os
from pathlib import Path

from minialex.errors import DataNotFound


def folders() -> tuple[Path, ...]:
    """Where to look when no place is given: $MINIALEX_DATA, ./data and ~/.cache/minialex."""
    named = os.environ.get("MINIALEX_DATA")
    return (*([Path(named).expanduser()] if named else []), Path("data"), download_default())


def download_default() -> Path:
    """~/.cache/minialex, where downloads go when nothing else is said."""
    return Path("~/.cache/minialex").expanduser()


def candidates(place: str | None, name: str, *further: str) -> tuple[Path, ...]:
    """Paths at which a data set may lie: the given place alone, or the usual folders and `further` ones.

    In each the data set's files may lie directly or in a folder called `name`.
    """
    roots = [Path(place).expanduser()] if place else [*folders(), *map(Path, further)]
    return tuple(path for root in roots for path in (root, root / name))


def not_found(name: str, looked: tuple[Path, ...], what: str) -> DataNotFound:
    """The error for a data set that lies at none of the places."""
    where = ", ".join(str(path) for path in looked)
    return DataNotFound(
        f"{name}: no {what} found; looked in {where}. Get it with 'minialex download {name}', "
        f"or say where it is: --data {name}:FOLDER."
    )
