"""Batches from the host, copied on a stream of their own while the device still computes the step before.

An array whose size has come before is taken for a batch's. Its memory is one of a few blocks that are used again and
again: the copy waits until whoever read the block last has done so, and work on the array waits for the copy. The first
array of a size (weights, mostly) is copied on the device's own stream.
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
"""Blocks of a size that are kept for later batches."""


class Lease(Memory):
    """A block that goes back to `Arrivals` when nobody holds it."""

    __slots__ = ("owner",)

    def __init__(self, block: Memory, owner: Arrivals) -> None:
        super().__init__(block.raw, block.nbytes, block.device, owner.count)
        self.owner = owner
        self.owner.lent[id(self)] = block

    def __del__(self) -> None:
        super().__del__()
        self.owner.give_back(self)


class Arrivals:
    """What comes from the host to one device."""

    def __init__(self, on: EagerPlace) -> None:
        self.on = on
        self.stream = on.runtime.stream(on.device)
        self.count: Counter[str] = Counter()  # the blocks themselves are counted by the runtime
        self.seen: Counter[int] = Counter()
        self.lent: dict[int, Memory] = {}
        self.returned: deque[tuple[Memory, Event | None]] = deque()
        self.idle: dict[int, list[tuple[Memory, Event]]] = defaultdict(list)

    def bring(self, source: NDArray[Any]) -> CudaArray:
        """A contiguous array of the host, on the device."""
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
        """A block that nobody holds any more.

        Nothing is asked of the device here: Python may collect an array at any moment, also while a step is captured,
        and then an event would become part of the graph, which nothing outside may wait for.
        """
        self.returned.append((self.lent.pop(id(lease)), lease.read))

    def _settle(self) -> None:
        """Sort what came back by size, with an event of its last reader, and keep some of each size."""
        on, runtime = self.on, self.on.runtime
        while self.returned:
            block, read = self.returned.popleft()
            read = runtime.record(on.stream) if read is None else read
            idle = self.idle[block.nbytes]
            if len(idle) < IDLE:
                idle.append((block, read))
            else:  # its memory may go to other work of the stream that it was allocated for
                runtime.wait(self.stream, read)

    @property
    def idle_bytes(self) -> int:
        """Bytes of the blocks that wait for later batches."""
        returned = [block for block, _ in list(self.returned)]
        return sum(block.nbytes for blocks in self.idle.values() for block, _ in blocks) + sum(
            block.nbytes for block in returned
        )
