"""The files of named data sets: where to look for them, and how to open them."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from minialex.errors import DataError, DataNotFound

CACHE = Path("~/.cache/minialex")
"""Where downloads go by default."""


def candidates(place: str | None, name: str, *further: str) -> tuple[Path, ...]:
    """Possible paths of a data set: only the given place, or the usual folders and `further` ones.

    The usual ones are $MINIALEX_DATA, ./data and ~/.cache/minialex. In each, the data set's files may be directly there
    or in a folder called `name`.
    """
    named = [Path(os.environ["MINIALEX_DATA"]).expanduser()] if os.environ.get("MINIALEX_DATA") else []
    usual = [*named, Path("data"), CACHE.expanduser(), *map(Path, further)]
    roots = [Path(place).expanduser()] if place else usual
    return tuple(path for root in roots for path in (root, root / name))


def not_found(name: str, looked: tuple[Path, ...], what: str) -> DataNotFound:
    """The error for a data set that is at none of the places."""
    where = ", ".join(str(path) for path in looked)
    return DataNotFound(
        f"{name}: no {what} found; looked in {where}. Get it with 'minialex download {name}', "
        f"or say where it is: --data {name}:FOLDER."
    )


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed if it is a gzip file.

    Raises:
        DataError: it cannot be read, or what is read of it within the block is damaged or truncated
    """
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            with gzip.open(file) if compressed else file as content:
                yield content  # type: ignore[misc]  # gzip's file is one, too
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as damage:
        raise DataError(f"{path}: damaged or cut short ({damage}); download it again.") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
