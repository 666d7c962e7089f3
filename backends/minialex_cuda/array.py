"""Arrays on a device: a shape over flat memory, whoever owns that."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np


class Memory:
    """A block of bytes on a device. It is counted as in use for as long as somebody holds it."""

    __slots__ = ("_count", "device", "nbytes", "raw")

    def __init__(self, raw: Any, nbytes: int, device: str, count: Counter[str]) -> None:
        self.raw = raw
        self.nbytes = nbytes
        self.device = device
        self._count = count
        count[device] += nbytes

    def __del__(self) -> None:
        self._count[self.device] -= self.nbytes


class Flat:
    """Some numbers in a row within a block of memory: what kernels take.

    Attributes
    ----------
    memory, offset : the block, and where in it they begin (bytes)
    raw : the runtime's own one-dimensional array
    """

    __slots__ = ("memory", "offset", "raw")

    def __init__(self, memory: Memory, offset: int, raw: Any) -> None:
        self.memory = memory
        self.offset = offset
        self.raw = raw

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return int(self.raw.nbytes)

    def overlaps(self, other: Flat) -> bool:
        """Whether the two share bytes."""
        return (
            self.memory is other.memory
            and self.offset < other.offset + other.nbytes
            and other.offset < self.offset + self.nbytes
        )


class CudaArray:
    """An array of the CUDA backend: contiguous, in row-major order.

    Attributes
    ----------
    flat : its numbers
    shape, dtype, device : as `minialex.backend` asks
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

    def __repr__(self) -> str:
        return f"CudaArray({self.shape}, {self.dtype}, {self.device!r})"
