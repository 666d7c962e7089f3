"""Shared by all compiled steps of a backend: only one runs at a time, so each may use all memory and all streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakSet

from minialex_cuda.compiler.schedule import StreamName
from minialex_cuda.runtime.array import Memory
from minialex_cuda.runtime.place import EagerPlace
from minialex_cuda.runtime.protocol import Stream

if TYPE_CHECKING:
    from minialex_cuda.compiler.compiled import Step


class Workspace:
    """One block of memory per device, as large as the largest step needs, and the streams of all columns.

    A step places its results there at fixed addresses, until a larger step comes: then all steps give up their
    addresses, and are placed again in the larger block when they next run.
    """

    def __init__(self, places: Mapping[str, EagerPlace]) -> None:
        self._places = places
        self._blocks: dict[str, Memory] = {}
        self._tenants: WeakSet[Step] = WeakSet()
        self._streams: dict[StreamName, Stream] = {}

    def stream(self, name: StreamName) -> Stream:
        """A column's stream. It lives as long as the backend, since each has its own cuBLAS handle and workspace."""
        if name not in self._streams:
            self._streams[name] = self._places[name[0]].runtime.stream(name[0])
        return self._streams[name]

    def available(self, device: str) -> int:
        """Bytes available to a step: free memory plus the current block."""
        held = self._blocks[device].nbytes if device in self._blocks else 0
        return self._places[device].runtime.free(device) + held

    def release(self) -> None:
        """Make all steps forget their addresses."""
        for tenant in list(self._tenants):
            tenant.release()
        self._tenants.clear()

    def blocks(self, tenant: Step, sizes: Mapping[str, int]) -> dict[str, Memory]:
        """The block of each device, of at least the given number of bytes.

        Raises:
            MemoryError: If a larger one is needed and cannot be allocated; there is then no block until the next call.
        """
        small = [d for d, size in sizes.items() if d not in self._blocks or self._blocks[d].nbytes < size]
        if small:
            self.release()
            for device in small:
                self._blocks.pop(device, None)
            for device in small:
                on = self._places[device]
                self._blocks[device] = on.runtime.allocate(sizes[device], device, on.stream)
        self._tenants.add(tenant)
        return {device: self._blocks[device] for device in sizes}
