"""Joining the other ranks, where a launcher of MPI's started this process as one of several; and leaving them."""

from __future__ import annotations

import atexit
import signal
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from minialex.ranks import launch

if TYPE_CHECKING:
    from minialex.ranks.group import Group
    from minialex.ranks.mpi import MpiGroup

_joined: MpiGroup | None = None
_error = ""


def join() -> Group:
    """The ranks that this process was started with; `ALONE` if it was started by itself.

    Only with others mpi4py is imported.

    Raises:
        ConfigurationError: If the launcher cannot be served, mpi4py is missing, or its library is not the launcher's.
    """
    global _joined  # noqa: PLW0603 - there is one world
    if _joined is None:
        found = launch.launcher()
        if found is not None:
            _joined = _join(found)
    if _joined is None:
        from minialex.ranks.group import ALONE

        return ALONE
    return _joined


def _join(found: launch.Launcher) -> MpiGroup:
    import mpi4py

    mpi4py.rc.initialize = mpi4py.rc.finalize = False  # its own end waits for ever where one rank failed
    from mpi4py import MPI

    from minialex.ranks.mpi import MpiGroup
    from minialex.ranks.watch import Watch

    launch.check_library(found, MPI.Get_library_version())
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    launch.check_size(found, MPI.COMM_WORLD.Get_size())
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failed(f"{kind.__name__}: {' '.join(str(error).split())}")
        before(kind, error, trace)

    sys.excepthook = hook
    atexit.register(lambda: leave(1 if _error else 0))
    return MpiGroup(MPI.COMM_WORLD, Watch(MPI.COMM_WORLD))


def hear_interrupts() -> None:
    """Let a Ctrl-C come through that `minialex.__main__` has held back until all have joined, and so end together."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def failed(error: str) -> bool:
    """Keep what was wrong for the end, where one rank says it for all; False if this process is alone."""
    global _error  # noqa: PLW0603 - there is one world
    if _joined is None:
        return False
    _error = error
    return True


def leave(code: int) -> int:
    """End together with the other ranks (see `MpiGroup.leave`); returns the code to end with."""
    global _joined
    group, _joined = _joined, None
    return code if group is None else group.leave(code, _error)


def set_timeout(seconds: float) -> None:
    """How long a rank may give no sign of life until it counts as lost."""
    if _joined is not None:
        _joined.watch.timeout = seconds
