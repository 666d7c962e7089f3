"""Joining the other ranks, where a launcher of MPI's started this process as one of several; and leaving them."""

from __future__ import annotations

import atexit
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from minialex.errors import ConfigurationError
from minialex.ranks.group import ALONE, Group

if TYPE_CHECKING:
    from minialex.ranks.mpi import MpiGroup

SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")
"""In which variables launchers say how many processes they started."""

_joined: MpiGroup | None = None
_error = ""


def join() -> Group:
    """The ranks that this process was started with; `ALONE` if it was started by itself.

    Only with others mpi4py is imported.

    Raises:
        ConfigurationError: If mpi4py is missing, or its library is not the launcher's.
    """
    global _joined  # noqa: PLW0603 - there is one world
    if _joined is None:
        size = max(int(os.environ[name]) if os.environ.get(name, "").isdecimal() else 1 for name in SIZES)
        if size > 1:
            _joined = _join(size)
    return ALONE if _joined is None else _joined


def _join(size: int) -> MpiGroup:
    try:
        import mpi4py
    except ModuleNotFoundError:
        raise ConfigurationError(
            f'started by mpiexec as one of {size}, but mpi4py is not installed: pip install "minialex[mpi]"'
        ) from None
    mpi4py.rc.initialize = mpi4py.rc.finalize = False  # its own end waits for ever where one rank failed
    from mpi4py import MPI

    from minialex.ranks.mpi import MpiGroup

    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    if MPI.COMM_WORLD.Get_size() != size:
        raise ConfigurationError(
            f"mpiexec started {size} processes and each finds {MPI.COMM_WORLD.Get_size()}: it is not of the library "
            "that mpi4py uses: take the mpiexec of this environment"
        )
    before = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        failed(f"{kind.__name__}: {' '.join(str(error).split())}")
        before(kind, error, trace)

    sys.excepthook = hook
    atexit.register(lambda: leave(1 if _error else 0))
    return MpiGroup(MPI.COMM_WORLD)


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
