"""Batches from the host, copied on a separate stream while the device still computes the previous step.

An array is taken for a batch if its size has come before. Its memory is one of a few blocks that are reused: the copy
waits until the block's last reader is done, and work on the array waits for the copy. The first array of a size
(mostly weights) is copied on the device's own stream.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex_cuda.runtime.array import CudaArray, Memory
from minialex_cuda.runtime.place import EagerPlace
from minialex_cuda.runtime.protocol import Event

IDLE = 2
"""Blocks of each size that are kept for later batches."""


class Lease(Memory):
    """A block that returns to `Arrivals` when it is no longer referenced."""

    __slots__ = ("owner",)

    def __init__(self, block: Memory, owner: Arrivals) -> None:
        super().__init__(block.raw, block.nbytes, block.device, owner.count)
        self.owner = owner
        self.owner.lent[id(self)] = block

    def __del__(self) -> None:
        super().__del__()
        self.owner.give_back(self)


class Arrivals:
    """Copies from the host to one device."""

    def __init__(self, on: EagerPlace) -> None:
        self.on = on
        self.stream = on.runtime.stream(on.device)
        self.count: Counter[str] = Counter()  # the runtime counts the blocks themselves
        self.seen: Counter[int] = Counter()
        self.lent: dict[int, Memory] = {}
        self.returned: deque[tuple[Memory, Event | None]] = deque()
        self.idle: dict[int, list[tuple[Memory, Event]]] = defaultdict(list)

    def bring(self, source: NDArray[Any]) -> CudaArray:
        """Copy a contiguous host array to the device."""
        on, runtime = self.on, self.on.runtime
        self.seen[source.nbytes] += 1
        if self.seen[source.nbytes] == 1 or not source.nbytes:
            made = on.empty(source.shape, source.dtype)
            if source.nbytes:
                runtime.upload(on.stream, source, made.flat)
            return made
        self._settle()
        idle = self.idle[source.nbytes]
        if idle:
            block, read = idle.pop(0)
            runtime.wait(self.stream, read)
        else:
            block = runtime.allocate(source.nbytes, on.device, self.stream)
        flat = runtime.flat(Lease(block, self), 0, source.size, source.dtype)
        runtime.upload(self.stream, source, flat)
        flat.arrives = runtime.record(self.stream)
        return CudaArray(flat, source.shape, np.dtype(source.dtype))

    def give_back(self, lease: Lease) -> None:
        """Take back a block that is no longer referenced.

        This calls nothing on the device: Python may collect an array at any moment, even while a step is captured, and
        an event would then become part of the graph, where nothing outside may wait for it.
        """
        self.returned.append((self.lent.pop(id(lease)), lease.read))

    def _settle(self) -> None:
        """Sort returned blocks by size, with an event after each one's last reader, and keep some of each size."""
        on, runtime = self.on, self.on.runtime
        while self.returned:
            block, read = self.returned.popleft()
            read = runtime.record(on.stream) if read is None else read
            idle = self.idle[block.nbytes]
            if len(idle) < IDLE:
                idle.append((block, read))
            else:  # its memory may be reused by the stream that it was allocated for
                runtime.wait(self.stream, read)

    @property
    def idle_bytes(self) -> int:
        """Bytes in the blocks that wait for later batches."""
        returned = [block for block, _ in list(self.returned)]
        return sum(block.nbytes for blocks in self.idle.values() for block, _ in blocks) + sum(
            block.nbytes for block in returned
        )
