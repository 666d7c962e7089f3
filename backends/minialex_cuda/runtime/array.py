"""Arrays on a device: a shape over flat memory, whoever owns the memory."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np


class Memory:
    """A block of bytes on a device. It is counted as in use for as long as somebody holds it.

    Attributes:
        raw, nbytes, device: the runtime's own block, its size and its device
        read: an event that its last reader is done at; None: whatever was asked of the device until now may read it
        fetched: all of its bytes on the host, if whoever wants some is to be given them from there, and where those
            begin that somebody was given; "later": at the first time
    """

    __slots__ = ("_count", "device", "fetched", "nbytes", "raw", "read")

    def __init__(self, raw: Any, nbytes: int, device: str, count: Counter[str]) -> None:
        self.raw = raw
        self.nbytes = nbytes
        self.device = device
        self.read: Any = None
        self.fetched: Any = None
        self._count = count
        count[device] += nbytes

    def __del__(self) -> None:
        self._count[self.device] -= self.nbytes


class Flat:
    """Some numbers in a row within a block of memory: what kernels take.

    Attributes:
        memory: the block
        offset: where in it they begin (bytes)
        raw: the runtime's own one-dimensional array
        view: the same as Numba's kernels take it, made once: making one costs more than a launch
        arrives: an event that they are there after, for what is still on its way from the host
    """

    __slots__ = ("arrives", "memory", "offset", "raw", "view")

    def __init__(self, memory: Memory, offset: int, raw: Any) -> None:
        self.memory = memory
        self.offset = offset
        self.raw = raw
        self.view: Any = None
        self.arrives: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return int(self.raw.nbytes)


class CudaArray:
    """An array of the CUDA backend: contiguous, in row-major order.

    Attributes:
        flat: its numbers
        shape, dtype, device: as `minialex.backend.protocol` asks
    """

    __slots__ = ("dtype", "flat", "shape")

    def __init__(self, flat: Flat, shape: tuple[int, ...], dtype: Any) -> None:
        self.flat = flat
        self.shape = tuple(int(n) for n in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @property
    def device(self) -> str:
        """Name of the device."""
        return self.flat.memory.device

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"CudaArray({self.shape}, {self.dtype}, {self.device!r})"


NOWHERE = Flat(Memory(None, 0, "", Counter()), 0, None)
"""The numbers of an array that has no memory."""


def without_memory(shape: tuple[int, ...], dtype: Any) -> CudaArray:
    """An array that is given its memory later."""
    return CudaArray(NOWHERE, shape, dtype)
