"""NCCL, through CuPy: it carries numbers between GPUs of several processes, on a stream, and no host waits. Optional.

A communicator belongs to one device of each process. Its calls must come in one order on all of them. Nothing of this
has run on a device yet: it is held on a pretend library (`tests/cuda/pretend`), under CuPy's own module.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from minialex.errors import ResourceError

INSTALL = "pip install 'minialex[nccl]'"

Part = tuple[int, int, Any, int]
"""Address, how many numbers, their dtype, and the rank that they go to or come from."""


def library() -> Any | None:
    """The module ``cupy.cuda.nccl``; None where NCCL is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's, where it cannot be loaded
        try:
            from cupy.cuda import nccl
        except ImportError:
            return None
    return nccl if nccl.available else None


class Communicator:
    """What joins one device of every process. Made while the device is the current one; all processes make it at once.

    Args:
        nccl: the module
        size: processes
        ident: the first process's `get_unique_id`, the same for all
        rank: which of them this is
    """

    def __init__(self, nccl: Any, size: int, ident: Sequence[int], rank: int) -> None:
        self._nccl = nccl
        self._comm: Any = None
        self._kinds = {np.dtype(np.float32): nccl.NCCL_FLOAT32, np.dtype(np.float64): nccl.NCCL_FLOAT64}
        self._comm = self._asked(lambda: nccl.NcclCommunicator(size, bytes(ident), rank))

    def _asked(self, call: Any) -> Any:
        try:
            return call()
        except self._nccl.NcclError as error:
            raise ResourceError(
                f"NCCL failed: {' '.join(str(error).split())}; NCCL_DEBUG=WARN in the environment lets it say more"
            ) from None

    def exchange(self, sends: Sequence[Part], receives: Sequence[Part], stream: int) -> None:
        """All of these at once; what one sends another receives, in the same order."""
        comm, nccl = self._comm, self._nccl

        def call() -> None:
            nccl.groupStart()
            try:
                for address, count, dtype, peer in sends:
                    comm.send(address, count, self._kinds[dtype], peer, stream)
                for address, count, dtype, peer in receives:
                    comm.recv(address, count, self._kinds[dtype], peer, stream)
            finally:
                nccl.groupEnd()

        self._asked(call)

    def all_reduce(self, arrays: Sequence[tuple[int, int, int, Any]], stream: int) -> None:
        """NCCL's own sums, of all at once: each from an address to another, so many numbers of a dtype."""
        comm, nccl = self._comm, self._nccl

        def call() -> None:
            nccl.groupStart()
            try:
                for source, target, count, dtype in arrays:
                    comm.allReduce(source, target, count, self._kinds[dtype], nccl.NCCL_SUM, stream)
            finally:
                nccl.groupEnd()

        self._asked(call)

    def check(self) -> None:
        """Raise what has gone wrong meanwhile.

        Raises:
            ResourceError: If something has: a process that is gone, a cable.
        """
        if self._comm is not None:
            self._asked(self._comm.check_async_error)

    def close(self) -> None:
        """Free it; all processes do."""
        comm, self._comm = self._comm, None
        if comm is not None:
            self._asked(comm.destroy)
