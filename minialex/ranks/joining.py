"""Joining the other ranks, if an MPI launcher started this process as one of several; and leaving them."""

from __future__ import annotations

import atexit
import signal
import sys
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from minialex.errors import MinialexError
from minialex.ranks import launch

if TYPE_CHECKING:
    from minialex.ranks.group import Group
    from minialex.ranks.mpi import MpiGroup

ASKED = 75
"""The exit code of a run that was asked to end: safe to run again."""

JOINING = 120
"""Seconds that a rank waits for the others to join before it gives up: the roll call begins only after that."""

_joined: MpiGroup | None = None
_error = ""


def join() -> Group:
    """Join the ranks that this process was started with; `ALONE` if it was started by itself.

    mpi4py is imported only if there are others.

    Raises:
        ConfigurationError: If the launcher is not supported, mpi4py is missing, or its library is not the launcher's.
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

    mpi4py.rc.initialize = mpi4py.rc.finalize = False  # its finalisation waits for ever if one rank failed
    from mpi4py import MPI

    from minialex.ranks.mpi import MpiGroup
    from minialex.ranks.watch import Watch

    launch.check_library(found, MPI.Get_library_version())
    if hasattr(signal, "alarm"):
        signal.alarm(JOINING)  # MPI waits for ever, and blocks all other threads
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    if hasattr(signal, "alarm"):
        signal.alarm(0)
    launch.check_size(found, MPI.COMM_WORLD.Get_size())
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failed(f"{kind.__name__}: {' '.join(str(error).split())}")
        before(kind, error, trace)

    sys.excepthook = hook
    atexit.register(lambda: leave(1 if _error else 0))
    return MpiGroup(MPI.COMM_WORLD, Watch(MPI.COMM_WORLD))


def hear_signals() -> None:
    """Let through the signals that `minialex.__main__` held back until all ranks had joined, and so end together.

    A request to end that comes before there is something to save (see `minialex.training.signals`), or after it, ends
    all ranks at once.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return
    asking = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGUSR1")]
    if _joined is not None:
        watch = _joined.watch

        def end(number: int, _: FrameType | None) -> None:
            words = f"{watch.names[watch.rank]}: asked to end by {signal.Signals(number).name}"
            watch.end(MinialexError(words), code=ASKED)

        for number in asking:
            if signal.getsignal(number) == signal.SIG_DFL:  # an ignored one stays ignored
                signal.signal(number, end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, *asking})


def failed(error: str) -> bool:
    """Keep an error for the end, where one rank reports it for all; False if this process is alone."""
    global _error  # noqa: PLW0603 - there is one world
    if _joined is None:
        return False
    _error = error
    return True


def leave(code: int) -> int:
    """End together with the other ranks (see `MpiGroup.leave`); return the code to exit with."""
    global _joined
    group, _joined = _joined, None
    return code if group is None else group.leave(code, _error)


def set_timeout(seconds: float) -> None:
    """Set how long a rank may give no sign of life before it counts as lost."""
    if _joined is not None:
        _joined.watch.timeout = seconds
