"""Downloads the named data sets: the only part of minialex that uses the network.

Pooch verifies the SHA-256 before a file gets its final name. Incomplete downloads are kept as ``NAME.part``, so that
the next attempt after a lost connection or a stopped command continues from there.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from minialex.data.sets.files import CACHE
from minialex.errors import ConfigurationError, DataError, ResourceError, nearest

if TYPE_CHECKING:
    import requests

Progress = Callable[[str, int, int | None], None]
"""Called with the file's name, the bytes received so far, and the total if the server reports it."""

_BLOCK = 1 << 14  # bytes; a dropped connection loses at most this much of what has arrived
_TIMEOUT = (15.0, 60.0)  # seconds to connect, and between bytes
_ATTEMPTS = 5  # including the first; later ones resume a dropped connection
_PAUSE = 1.0  # seconds before the next attempt


@dataclass(frozen=True)
class File:
    """A file of a data set: its address, its size in bytes and its SHA-256."""

    url: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.url.rsplit("/", 1)[-1]


_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
REGISTRY: Mapping[str, tuple[File, ...]] = {
    "cifar10": (
        File("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 170_498_071,
             "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),
    ),
    "fashion-mnist": (
        File(_FASHION + "train-images-idx3-ubyte.gz", 26_421_880,
             "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        File(_FASHION + "train-labels-idx1-ubyte.gz", 29_515,
             "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        File(_FASHION + "t10k-images-idx3-ubyte.gz", 4_422_102,
             "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        File(_FASHION + "t10k-labels-idx1-ubyte.gz", 5_148,
             "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
}  # fmt: skip


def fetch(
    name: str,
    folder: str | os.PathLike[str] | None = None,
    *,
    registry: Mapping[str, tuple[File, ...]] = REGISTRY,
    progress: Progress | None = None,
) -> Path:
    """Download a data set, unless it is already present.

    Args:
        name: ``cifar10`` or ``fashion-mnist``
        folder: the parent folder; None is $MINIALEX_DATA or ~/.cache/minialex. The files go into its sub-folder `name`.
        progress: called after every block

    Returns:
        The sub-folder with the files, where `minialex.data.load` finds them.

    Raises:
        ConfigurationError: an unknown name
        DataError: the server cannot be reached, drops the connection, or sends something else
        ResourceError: the disk is full or not writable
    """
    if name not in registry:
        raise ConfigurationError(f"no download is known for '{name}'; known are {', '.join(registry)}."
                                 f"{nearest(name, registry)}")  # fmt: skip
    root = folder if folder is not None else os.environ.get("MINIALEX_DATA") or CACHE
    target = Path(root).expanduser() / name
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file in registry[name]:
            _fetch(file, target, progress)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            need, free = sum(file.size for file in registry[name]), shutil.disk_usage(target).free
            raise ResourceError(
                f"{target}: {error.strerror}; {name} takes {need:,} bytes, {free:,} are free."
            ) from None
        raise ResourceError(f"{error.filename or target}: cannot be written ({error.strerror or error}).") from None
    return target


def _fetch(file: File, target: Path, progress: Progress | None) -> None:
    """Download one file, verified before it gets its final name."""
    import pooch  # type: ignore[import-untyped]

    pooch.get_logger().setLevel("WARNING")  # the command shows its own progress

    def download(url: str, output: str | os.PathLike[str], _: object) -> None:
        part = target / f"{file.name}.part"
        _stream(url, part, file, progress)
        os.replace(part, output)  # pooch's temporary name, removed if the checksum is wrong

    try:
        pooch.retrieve(file.url, f"sha256:{file.sha256}", fname=file.name, path=target, downloader=download)
    except ValueError:  # how pooch reports a wrong checksum
        raise DataError(f"{file.url}: what the server sent is not {file.name} (its SHA-256 differs); nothing was kept. "
                        "Try again later, or get the file elsewhere.") from None  # fmt: skip


def _stream(url: str, part: Path, file: File, progress: Progress | None) -> None:
    """Fill `part` up to the file's size, resuming where a connection was dropped."""
    import requests

    problem = "the server sent too few bytes"
    for attempt in range(_ATTEMPTS):
        time.sleep(_PAUSE if attempt else 0)
        have = part.stat().st_size if part.exists() else 0
        if have >= file.size:
            return  # complete, unless something else wrote here: the checksum will show
        wanted = {"Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
        try:
            with requests.get(url, headers=wanted, stream=True, timeout=_TIMEOUT) as answer:
                have = _start(answer, have, file)
                with part.open("ab" if have else "wb") as out:
                    for block in answer.iter_content(_BLOCK):
                        out.write(block[: file.size - have])
                        have = min(have + len(block), file.size)
                        if progress:
                            progress(file.name, have, file.size)
                        if have == file.size:
                            break  # ignore anything else that the server would send
                    out.flush()
                    os.fsync(out.fileno())
        except requests.RequestException as error:
            problem = f"{type(error).__name__}: {str(error)[:160]}"
        else:
            if have >= file.size:
                return
    have = part.stat().st_size if part.exists() else 0
    raise DataError(f"{url}: {have:,} of {file.size:,} bytes arrived ({problem}); "
                    "run the same command again to continue from there.")  # fmt: skip


def _start(answer: requests.Response, have: int, file: File) -> int:
    """The position of a response's bytes: after those received so far, or at the beginning.

    Raises:
        DataError: a response that is not the file
    """
    if not answer.ok:
        raise DataError(f"{file.url}: the server answers '{answer.status_code} {answer.reason}'; try again later.")
    kind = answer.headers.get("Content-Type", "")
    if kind.startswith("text/html"):
        raise DataError(f"{file.url}: the server sends a web page, not {file.name}; nothing was kept. "
                        "Is there a proxy or a log-in page in between?")  # fmt: skip
    if answer.status_code == 206 and answer.headers.get("Content-Range") == f"bytes {have}-{file.size - 1}/{file.size}":
        return have
    length = answer.headers.get("Content-Length")
    if answer.status_code != 200 or (length is not None and length != str(file.size)):
        raise DataError(f"{file.url}: the server sends {length or 'part of'} bytes, but {file.name} has {file.size:,}; "
                        "nothing was kept.")  # fmt: skip
    return 0
