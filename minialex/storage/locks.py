"""One writer at a time: locks that the operating system releases when a process ends, in whatever way."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path

from minialex.errors import ConfigurationError
from minialex.storage import atomic


@contextlib.contextmanager
def locked_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Lock a folder itself, without a file in it; if folders have no locks (Windows), do nothing.

    Raises:
        ConfigurationError: another process holds it; `refusal` is the message
    """
    with atomic.open_folder(folder) as descriptor:
        if descriptor is not None and atomic.try_lock(descriptor) is False:
            raise ConfigurationError(refusal)
        yield


@contextlib.contextmanager
def locked_by_file(folder: Path, name: str) -> Iterator[None]:
    """Lock a folder by a file in it that names the process, the host and the time.

    The file stays: its contents count only while it is locked. If files have no locks, the process that it names is
    looked up instead.

    Raises:
        ConfigurationError: another process holds it; the message names the process
        ResourceError: the disk is full or failing
    """
    path = folder / name
    with atomic.translate_os_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    _held.add(descriptor)
    try:
        with atomic.translate_os_errors(path):
            locked = atomic.try_lock(descriptor)
            holder = _holder(descriptor)
            if locked is False or (locked is None and _runs_here(holder)):
                raise ConfigurationError(
                    f"{str(folder)!r} is in use by process {holder.get('pid', 'unknown')} on "
                    f"{holder.get('host', 'this machine')} since {holder.get('since', 'an unknown time')}: "
                    "wait until it ends, stop it, or choose another folder"
                )
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            own = {"pid": os.getpid(), "host": platform.node(), "since": now()}
            os.write(descriptor, json.dumps(own).encode() + b"\n")
        try:
            yield
        finally:
            if descriptor in _held:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)


def now() -> str:
    """The local time with its zone, to the second."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def _holder(descriptor: int) -> Mapping[str, object]:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        holder = json.loads(os.read(descriptor, 4096))
    except (OSError, ValueError):  # empty, or just being written
        return {}
    return holder if isinstance(holder, dict) else {}


def _runs_here(holder: Mapping[str, object]) -> bool:
    """Whether a process is running, for file systems without locks; on Windows unknown, hence False."""
    pid = holder.get("pid")
    if os.name != "posix" or holder.get("host") != platform.node() or not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)  # signal 0 only checks
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _forget_all() -> None:
    while _held:
        os.close(_held.pop())


# A forked worker inherits the open files, and through them the locks would outlive the trainer.
_held: set[int] = set()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
