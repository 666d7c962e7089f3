"""Arrays on a device: a shape over flat memory, whatever owns that memory."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np

_VERSIONS = itertools.count()


class Memory:
    """A block of bytes on a device. It counts as in use for as long as it is referenced.

    Attributes:
        raw, nbytes, device: the runtime's own block, its size and its device
        read: an event after its last reader; None: any work submitted to the device so far may read it
        version: a number that no other block ever has, and another one after every change of the bytes
    """

    __slots__ = ("_count", "device", "nbytes", "raw", "read", "version")

    def __init__(self, raw: Any, nbytes: int, device: str, count: Counter[str]) -> None:
        self.raw = raw
        self.nbytes = nbytes
        self.device = device
        self.read: Any = None
        self.version = next(_VERSIONS)
        self._count = count
        count[device] += nbytes

    def changed(self) -> None:
        """Note that bytes are being changed. Whoever lets work write to a block calls this first."""
        self.version = next(_VERSIONS)

    def __del__(self) -> None:
        self._count[self.device] -= self.nbytes


class Flat:
    """A contiguous run of numbers within a block of memory: what kernels take.

    Attributes:
        memory: the block
        offset: where in it the numbers begin (bytes)
        raw: the runtime's own one-dimensional array
        view: the same as Numba's kernels take it, made once, since making one costs more than a launch
        arrives: the event after which the numbers have arrived, if they are still being copied from the host
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
        rounded: its numbers in bfloat16, if a compiled step reads those instead
    """

    __slots__ = ("dtype", "flat", "rounded", "shape")

    def __init__(self, flat: Flat, shape: tuple[int, ...], dtype: Any) -> None:
        self.flat = flat
        self.shape = tuple(int(n) for n in shape)
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.rounded: Rounded | None = None

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


class Rounded(CudaArray):
    """The numbers of a float32 array in bfloat16 (uint16), in memory of their own.

    Attributes:
        version: the version of the array's memory from which they were rounded; None: not yet
    """

    __slots__ = ("version",)

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(NOWHERE, shape, np.uint16)
        self.version: int | None = None


NOWHERE = Flat(Memory(None, 0, "", Counter()), 0, None)
"""The numbers of an array that has no memory."""


def without_memory(shape: tuple[int, ...], dtype: Any) -> CudaArray:
    """An array that is given its memory later."""
    return CudaArray(NOWHERE, shape, dtype)
