"""NCCL, through CuPy: moves numbers between the GPUs of several processes, on a stream; no host waits. Optional.

A communicator belongs to one device of each process. All of them must make its calls in the same order. None of this
has run on a device yet: it is tested on a pretend library (`tests/cuda/pretend`), below CuPy's own module.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from minialex.errors import ResourceError

INSTALL = "pip install 'minialex[nccl]'"

Part = tuple[int, int, Any, int]
"""Address, count and dtype of numbers, and the rank that they go to or come from."""


def library() -> Any | None:
    """The module ``cupy.cuda.nccl``; None if NCCL is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's, if NCCL cannot be loaded
        try:
            from cupy.cuda import nccl
        except ImportError:
            return None
    return nccl if nccl.available else None


class Communicator:
    """Joins one device of every process. All processes create it together, while the device is current.

    Args:
        nccl: the module
        size: number of processes
        ident: the first process's `get_unique_id`, the same for all
        rank: number of this process
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
        """Do all sends and receives at once; every send matches another rank's receive, in the same order."""
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
        """NCCL's own all-reduces, of all arrays at once: each is (source address, target address, count, dtype)."""
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
        """Raise the error of any call so far.

        Raises:
            ResourceError: If a call has failed: a process is gone, or a link is down.
        """
        if self._comm is not None:
            self._asked(self._comm.check_async_error)

    def close(self) -> None:
        """Free the communicator; all processes do."""
        comm, self._comm = self._comm, None
        if comm is not None:
            self._asked(comm.destroy)
