"""The only place that writes the files of a run, so that no file with a final name is ever half written.

A file is written under a temporary name in its own folder, synced to disk, closed and renamed; then the folder is
synced, since a rename that is not synced can be lost in a power failure. A folder of several files (a checkpoint) is
written the same way as a whole. Temporary names begin with ``.tmp-``; while a process writes one, it holds a lock on
it, so that leftovers of killed processes can be told from files that are being written.

Files are written unbuffered: a buffered file reports a full disk only when it is closed, and Python drops that error
if nothing closes it.

Functions that write a final name raise as described in `translate_os_errors`, and leave an existing file of that name
unchanged; functions on folders raise the operating system's own OSError unless stated otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from minialex.errors import CheckpointError, ConfigurationError, MinialexError, ResourceError
from minialex.screen.formats import readable_size

TEMPORARY = ".tmp-"
BLOCK = 8 * 1024 * 1024  # bytes per write

T = TypeVar("T")


# ---------------------------------------------------------------- errors of the operating system


@contextlib.contextmanager
def translate_os_errors(path: str | os.PathLike[str], needed: int | None = None) -> Iterator[None]:
    """Turn operating system errors while `path` is written into errors that a user can act on.

    Args:
        path: the final name of what is being written: the name that the user knows
        needed: bytes that are being written

    Raises:
        ResourceError: a full disk, a quota, a file-size limit, an I/O error (also from sync, rename and close); says
            what was needed and what is free, measured after temporary files were removed
        ConfigurationError: the folder is missing or not writable
    """
    try:
        yield
    except OSError as error:
        raise _explanation(error, Path(path), needed) from error


def _explanation(error: OSError, path: Path, needed: int | None) -> MinialexError:
    reason = error.strerror or str(error)
    need = "" if needed is None else f"{readable_size(needed)} needed, "
    kind: type[MinialexError] = ResourceError
    match error.errno:
        case errno.ENOSPC:
            enough = needed is not None and needed <= _free_bytes(path)
            more = ", of which the file system itself takes a part" if enough else ""
            text = f"the disk is full: {need}{_free(path)}{more}; make room there, or choose another disk"
        case errno.EDQUOT:
            text = f"your disk quota is used up: {need}{_free(path)} on the disk as a whole; remove files of yours, or "
            text += "choose another disk"
        case errno.EFBIG:
            text = f"the file is larger than allowed: {need}{_file_size_limit()}"
        case errno.EIO:
            text = f"the disk reports an error ({reason}): {need}{_free(path)}; check the disk and its cables or "
            text += "network, then run again"
        case errno.EACCES | errno.EPERM | errno.EROFS:
            kind, text = ConfigurationError, f"{reason}: choose a folder that you may write to"
        case errno.ENOENT | errno.ENOTDIR | errno.EISDIR | errno.ENAMETOOLONG | errno.ELOOP | errno.EEXIST:
            kind, text = ConfigurationError, f"{reason}: check the path"
        case _:
            text = f"{reason}: {need}{_free(path)}"
    return kind(f"cannot write {str(path)!r}: {text}")


def on_disk(sizes: Iterable[int], folder: Path) -> int:
    """Bytes that files of some sizes take in a new folder, rounded up to whole file system blocks."""
    block = os.statvfs(folder).f_frsize if hasattr(os, "statvfs") else 4096
    return sum(-(-size // block) * block for size in (*sizes, block))


def _free_bytes(path: Path) -> int:
    for folder in (path, *path.parents):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                return shutil.disk_usage(folder).free
    return 0


def _free(path: Path) -> str:
    for folder in (path, *path.parents):
        if folder.is_dir():
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(folder).free
                if hasattr(os, "statvfs"):
                    figures = os.statvfs(folder)
                    if figures.f_files and not figures.f_favail:
                        return f"{readable_size(free)} free, but no inode for one more file"
                return f"{readable_size(free)} free"
    return "free space unknown"


def _file_size_limit() -> str:
    try:
        import resource
    except ImportError:  # not on Windows
        return "choose another file system"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if limit == resource.RLIM_INFINITY:
        return "the file system has a limit; choose another one"
    return f"{readable_size(limit)} allowed by the file-size limit; raise it (ulimit -f unlimited)"


def unreadable(path: Path, error: OSError) -> CheckpointError | ConfigurationError:
    """The error for a run's file that the operating system refuses to read."""
    if isinstance(error, PermissionError):
        return ConfigurationError(f"cannot read {str(path)!r}: {error.strerror}: ask its owner for the permission")
    if isinstance(error, FileNotFoundError):
        return CheckpointError(f"{str(path)!r} is missing")
    return CheckpointError(f"cannot read {str(path)!r}: {error.strerror or error}")


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder for this process until it is closed or the process ends, without waiting.

    Returns:
        True if it is locked now, False if another process holds it, None if there are no such locks (Windows, some
        network file systems).
    """
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def open_folder(path: Path) -> Iterator[int | None]:
    """A descriptor of a folder (or file), for syncing or locking; None if folders have none (Windows)."""
    descriptor = os.open(path, os.O_RDONLY) if os.name == "posix" else None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file atomically: whenever the process or the machine stops, the old or the complete new file exists."""
    write_stream(path, [data], needed=len(data))


def write_stream(path: str | os.PathLike[str], chunks: Iterable[Any], *, needed: int | None = None) -> tuple[int, str]:
    """Write a file like `write_bytes`, from a sequence of contiguous buffers, none of which is kept.

    Args:
        chunks: the buffers; an OSError that it raises counts as the file's
        needed: number of bytes that will be written, if known, for error messages

    Returns:
        Its length in bytes and its SHA-256 in hexadecimal, computed from memory (see `write_new`).
    """
    path = Path(path)
    with contextlib.suppress(OSError):  # errors of the path are reported below
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # a rename would replace /dev/null by a file
            raise ConfigurationError(f"cannot write {str(path)!r}: it is a device or a pipe; name a file")
    with translate_os_errors(path, needed=needed):
        temporary, file = _at_temporary_name(path, lambda name: open(name, "xb", buffering=0))  # noqa: SIM115 - closed below
        try:
            with file:
                try_lock(file.fileno())
                written = _write_and_sync(file, chunks)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    return written


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file like `write_bytes`, with newlines unchanged."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: object) -> None:
    """Write a JSON file like `write_bytes`; ConfigurationError for values that JSON lacks, such as NaN."""
    write_bytes(path, json_bytes(value, path))


def json_bytes(value: object, path: str | os.PathLike[str]) -> bytes:
    """Return `value` as the bytes of a JSON file; `path` is for error messages."""
    try:
        return json.dumps(value, indent=1, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"cannot write {os.fspath(path)!r}: not a JSON value: {error}") from error


def write_new(path: Path, chunks: Iterable[Any]) -> tuple[int, str]:
    """Write and sync a file that does not exist yet, inside a folder from `new_folder`.

    Args:
        chunks: its contents, a sequence of contiguous buffers; none is copied

    Returns:
        Its length in bytes and its SHA-256 in hexadecimal, computed from memory, not from what the disk returns, so
        that it also reveals faults on the way to the disk.
    """
    with open(path, "xb", buffering=0) as file:
        return _write_and_sync(file, chunks)


def _at_temporary_name(path: Path, make: Callable[[Path], T]) -> tuple[Path, T]:
    """The first free temporary name beside `path`, and what `make` creates there."""
    number = 0
    while True:
        temporary = path.with_name(f"{TEMPORARY}{number}-{path.name}")
        with contextlib.suppress(FileExistsError):
            return temporary, make(temporary)
        number += 1


def _write_and_sync(file: IO[bytes], chunks: Iterable[Any]) -> tuple[int, str]:
    digest = hashlib.sha256()
    size = 0
    for chunk in chunks:
        rest = memoryview(chunk)
        size += len(rest)
        while rest:
            block = rest[: file.write(rest[:BLOCK])]  # may be partial; the next round tells why
            digest.update(block)
            rest = rest[len(block) :]
    os.fsync(file.fileno())
    return size, digest.hexdigest()


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on disk; it is no error if a file system cannot sync folders."""
    with open_folder(path) as descriptor:
        try:
            if descriptor is not None:
                os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents; an existing one is left alone; errors are translated."""
    with translate_os_errors(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


@contextlib.contextmanager
def new_folder(final: Path) -> Iterator[Path]:
    """Create an empty folder under a temporary name beside `final`, to be filled and then passed to `move_folder`.

    If the block fails, the temporary folder is removed.
    """
    temporary, _ = _at_temporary_name(final, Path.mkdir)
    with open_folder(temporary) as descriptor:
        try:
            if descriptor is not None:
                try_lock(descriptor)
            yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise


def move_folder(source: Path, target: Path) -> None:
    """Sync a folder whose files are synced, rename it within its parent, and sync the parent."""
    sync_folder(source)
    os.rename(source, target)
    sync_folder(target.parent)


def replace_folder(source: Path, target: Path) -> None:
    """Put a folder in the place of another, which is removed only afterwards; a missing folder is no error.

    At any time one of the two exists: the old `target` has a temporary name beside it until `source` is in place, and
    gets its own name back if that fails. A process killed in between leaves it there; the next call removes it once
    `target` is complete.
    """
    old = target.with_name(f"{TEMPORARY}removed-{target.name}")
    if target.exists():
        if old.exists():
            shutil.rmtree(old)
        os.rename(target, old)
    try:
        move_folder(source, target)
    except OSError:
        if old.exists() and not target.exists():
            os.rename(old, target)
        raise
    if old.exists():
        shutil.rmtree(old)


def remove_folder(path: Path) -> None:
    """Remove a folder so that it is never seen half removed: it first gets a temporary name."""
    temporary = path.with_name(f"{TEMPORARY}removed-{path.name}")
    if temporary.exists():
        shutil.rmtree(temporary)
    os.rename(path, temporary)
    shutil.rmtree(temporary)


def remove_stale(folder: Path) -> None:
    """Remove temporary files and folders of killed processes; those that a running process writes stay."""
    for path in list(folder.glob(f"{TEMPORARY}*")):
        with contextlib.suppress(OSError):
            if _is_being_written(path):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _is_being_written(path: Path) -> bool:
    if path.is_symlink():
        return False
    with open_folder(path) as descriptor:
        return descriptor is not None and try_lock(descriptor) is False


class LineFile:
    """A text file to which complete lines are appended; all methods translate errors.

    A line is written at once. If the disk takes only a part of it, that part is truncated again; if the process is
    killed meanwhile, the next one that opens the file truncates it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with translate_os_errors(path):
            self._open()

    def _open(self) -> None:
        is_new = not self.path.exists()
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115 - closed by close()
        if is_new:
            sync_folder(self.path.parent)
        contents = self.path.read_bytes()
        if not contents.endswith(b"\n"):
            self._file.truncate(contents.rfind(b"\n") + 1)

    def append(self, line: str) -> None:
        """Append one line; newlines in it become spaces."""
        data = " ".join(line.splitlines()).encode(errors="replace") + b"\n"
        with translate_os_errors(self.path, needed=len(data)):
            before = os.fstat(self._file.fileno()).st_size
            rest = memoryview(data)
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
            except BaseException:
                with contextlib.suppress(OSError):
                    self._file.truncate(before)
                raise

    def sync(self) -> None:
        """Wait until all lines are on disk. A file that was removed or replaced is started anew."""
        with translate_os_errors(self.path):
            if not (self.path.exists() and os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())):
                self._file.close()
                self._open()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        with translate_os_errors(self.path):
            self._file.close()


def json_line(record: Mapping[str, object]) -> str:
    """Return a record as one line of strict JSON; non-finite numbers become null."""
    return json.dumps(_finite(record), allow_nan=False)


def _finite(value: object) -> object:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {name: _finite(entry) for name, entry in value.items()}
        case list() | tuple():
            return [_finite(entry) for entry in value]
    return value
