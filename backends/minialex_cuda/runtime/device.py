"""The runtime of GPUs: memory, streams, events and graphs by CuPy, kernels by Numba CUDA, products by cuBLAS.

Its rules: one non-blocking stream per queue; copies between devices run on a stream and are ordered by events; memory
returns only to its own stream; and no call waits unless it says so. Every change is tested against them on a pretend
driver (`tests/cuda/pretend`); results from real devices are recorded in ``benchmarks/results/device``.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cupy
import numpy as np
from cupy.cuda import runtime as cuda_runtime
from numba import cuda as numba_cuda
from numba.cuda.core import config as numba_config
from numpy.typing import NDArray

from minialex_cuda.runtime import choices
from minialex_cuda.runtime.array import Flat, Memory
from minialex_cuda.runtime.cublas import WORKSPACE, Multiplier
from minialex_cuda.runtime.cudnn import Convolutions
from minialex_cuda.runtime.kernel import Grid, Kernel
from minialex_cuda.runtime.nccl import Communicator, library
from minialex_cuda.runtime.protocol import Convolution, Product, Runtime, Touched, owner
from minialex_cuda.runtime.timing import Timer

THREADS = 256
BLOCKS = 1 << 16
"""The most blocks in one launch; the loops in the kernels do the rest."""

ALIGNED = 256
"""No block of memory is smaller: even an empty array has an address."""

numba_config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # small networks have small layers


def view(flat: Flat) -> Any:
    """Numbers as Numba's kernels take them; must be called while their device is current."""
    if flat.view is None:
        flat.view = numba_cuda.as_cuda_array(flat.raw, sync=False)
    return flat.view


def address(flat: Flat) -> int:
    """The address at which numbers begin."""
    return int(flat.raw.data.ptr)


@dataclass
class Staging:
    """Pinned host memory that uploads of one size go through, from the second upload of that size on."""

    seen: Counter[int] = field(default_factory=Counter)
    blocks: dict[int, list[tuple[Any, NDArray[np.uint8]]]] = field(default_factory=dict)

    def block(self, nbytes: int) -> tuple[Any, NDArray[np.uint8]] | None:
        """Get (event, memory) whose last copy is done; None for a size that has not come before, or without memory."""
        self.seen[nbytes] += 1
        if self.seen[nbytes] == 1:
            return None
        blocks = self.blocks.setdefault(nbytes, [])
        for position, (event, _) in enumerate(blocks):
            if event.done:
                return blocks.pop(position)
        try:
            pointer = cupy.cuda.alloc_pinned_memory(nbytes)
        except cuda_runtime.CUDARuntimeError:  # the system cannot lock more pages
            return None
        return cupy.cuda.Event(disable_timing=True), np.frombuffer(pointer, np.uint8, nbytes)

    def give_back(self, nbytes: int, block: tuple[Any, NDArray[np.uint8]]) -> None:
        """Return a block for reuse once its event is done."""
        self.blocks[nbytes].append(block)


@dataclass
class DeviceStream:
    """A stream and its tools: CuPy's and Numba's view of it, cuBLAS, a cuDNN handle, pinned memory."""

    index: int
    stream: Any
    view: Any
    workspace: Any
    multiplier: Multiplier | None = None
    convolver: Any = None
    staging: Staging = field(default_factory=Staging)
    held: deque[tuple[Any, NDArray[Any]]] = field(default_factory=deque)
    """(event, array) of copies from or to pinned memory, which is held until they are done."""


class DeviceRuntime(Runtime):
    """The GPUs that this process may use."""

    def __init__(self) -> None:
        super().__init__(cuda_runtime.getDeviceCount())
        self._convolutions: dict[str, Convolutions] = {}
        self._reached: set[tuple[int, int]] = set()

    def has_bfloat16(self, device: str) -> bool:
        return int(cupy.cuda.Device(self.devices.index(device)).compute_capability) >= 80

    def stream(self, device: str) -> DeviceStream:
        index = self.devices.index(device)
        with cupy.cuda.Device(index):
            stream = cupy.cuda.Stream(non_blocking=True)
            return DeviceStream(index, stream, numba_cuda.external_stream(stream.ptr), None)

    def allocate(self, nbytes: int, device: str, stream: DeviceStream) -> Memory:
        try:
            with cupy.cuda.Device(stream.index), stream.stream:
                raw = cupy.empty(max(nbytes, ALIGNED), cupy.uint8)
        except cupy.cuda.memory.OutOfMemoryError:
            raise MemoryError(f"{device}: needed {nbytes:,} bytes more, {self.free(device):,} are free") from None
        return Memory(raw, nbytes, device, self._in_use)

    def upload(self, stream: DeviceStream, source: NDArray[Any], target: Flat) -> None:
        nbytes = source.nbytes
        host_to_device = cuda_runtime.memcpyHostToDevice
        with cupy.cuda.Device(stream.index), stream.stream:
            if isinstance(owner(source), cupy.cuda.PinnedMemoryPointer):
                cuda_runtime.memcpyAsync(address(target), source.ctypes.data, nbytes, host_to_device, stream.stream.ptr)
                self._hold(stream, source)
                return
            block = stream.staging.block(nbytes)
            if block is None:  # from pageable memory: the host waits until the numbers are read
                target.raw.set(source.reshape(-1), stream=stream.stream)
                return
            event, pinned = block
            np.copyto(pinned, source.reshape(-1).view(np.uint8))
            cuda_runtime.memcpyAsync(address(target), pinned.ctypes.data, nbytes, host_to_device, stream.stream.ptr)
            stream.stream.record(event)
            stream.staging.give_back(nbytes, block)

    def host_bytes(self, nbytes: int) -> NDArray[np.uint8]:
        try:
            pointer = cupy.cuda.alloc_pinned_memory(max(nbytes, 1))  # from a pool, to which it returns
        except cuda_runtime.CUDARuntimeError:  # the system cannot lock more pages
            return np.empty(nbytes, np.uint8)
        return np.frombuffer(pointer, np.uint8, nbytes)

    def _hold(self, stream: DeviceStream, pinned: NDArray[Any]) -> Any:
        """Hold pinned memory until the work submitted so far is done; returns the event of that."""
        event = self.record(stream)
        while stream.held and stream.held[0][0].done:
            stream.held.popleft()
        stream.held.append((event, pinned))
        return event

    def download(self, stream: DeviceStream, source: Flat) -> NDArray[Any]:
        with cupy.cuda.Device(stream.index), stream.stream:
            found: NDArray[Any] = source.raw.get(stream=stream.stream)  # waits for the stream
        return found

    def fetch(self, stream: DeviceStream, source: Flat, target: NDArray[Any]) -> Any:
        device_to_host = cuda_runtime.memcpyDeviceToHost
        with cupy.cuda.Device(stream.index):
            cuda_runtime.memcpyAsync(
                target.ctypes.data, address(source), source.nbytes, device_to_host, stream.stream.ptr
            )
            return self._hold(stream, target)

    def clear(self, stream: DeviceStream, target: Flat) -> None:
        with cupy.cuda.Device(stream.index):
            cuda_runtime.memsetAsync(address(target), 0, target.nbytes, stream.stream.ptr)

    def copy(self, stream: DeviceStream, source: Flat, target: Flat) -> None:
        there, here = (self.devices.index(flat.memory.device) for flat in (source, target))
        with cupy.cuda.Device(stream.index):
            if there == here:
                kind = cuda_runtime.memcpyDeviceToDevice
                cuda_runtime.memcpyAsync(address(target), address(source), source.nbytes, kind, stream.stream.ptr)
            else:
                self._reach(there, here)
                cuda_runtime.memcpyPeerAsync(
                    address(target), here, address(source), there, source.nbytes, stream.stream.ptr
                )

    def _reach(self, *pair: int) -> None:
        """Enable peer access between two devices, if possible; otherwise the driver copies through the host."""
        for device, peer in (pair, pair[::-1]):
            if (device, peer) in self._reached:
                continue
            self._reached.add((device, peer))
            reason = "they cannot reach each other's memory"
            if cuda_runtime.deviceCanAccessPeer(device, peer):
                try:
                    with cupy.cuda.Device(device):
                        cuda_runtime.deviceEnablePeerAccess(peer)
                    continue
                except cuda_runtime.CUDARuntimeError as error:
                    if "PeerAccessAlreadyEnabled" in str(error):
                        continue
                    reason = str(error)
            logging.getLogger("minialex").warning(
                "copies from cuda:%d to cuda:%d go through the host's memory, which is slower: %s", device, peer, reason
            )

    def launch(
        self,
        stream: DeviceStream,
        kernel: Kernel,
        count: int | Grid,
        arguments: Sequence[Any],
        touched: Touched | None = None,
    ) -> None:
        with cupy.cuda.Device(stream.index):
            plain = [view(a) if isinstance(a, Flat) else a for a in arguments]
            if isinstance(count, Grid):
                kernel.device[count.blocks, count.threads, stream.view, 4 * count.shared](*plain)
            else:
                blocks = min(-(-count // THREADS), BLOCKS)
                kernel.device[blocks, THREADS, stream.view](count, *plain)

    def multiply(self, stream: DeviceStream, a: Flat, b: Flat, out: Flat, product: Product) -> None:
        with cupy.cuda.Device(stream.index):
            if stream.multiplier is None:
                with stream.stream:
                    stream.workspace = cupy.empty(WORKSPACE, cupy.uint8)
                stream.multiplier = Multiplier(stream.stream.ptr, stream.workspace.data.ptr)
            stream.multiplier.multiply(address(a), address(b), address(out), a.raw.dtype, out.raw.dtype, product)

    def convolution_bytes(self, device: str, convolution: Convolution) -> int | None:
        with cupy.cuda.Device(self.devices.index(device)):
            if device not in self._convolutions:
                name = numba_cuda.get_current_device().name
                name = name.decode() if isinstance(name, bytes) else str(name)
                self._convolutions[device] = Convolutions(name, self._choices, Timer)
            return self._convolutions[device].workspace(convolution)

    @cached_property
    def _choices(self) -> Path | None:
        """The folder of the chosen plans."""
        return choices.opened()

    def convolve(
        self,
        stream: DeviceStream,
        convolution: Convolution,
        a: Flat,
        b: Flat,
        out: Flat,
        workspace: Flat,
        bias: Flat | None = None,
    ) -> None:
        addresses = [address(flat) for flat in (a, b, out, workspace, bias) if flat is not None]
        convolutions = self._convolutions[self.devices[stream.index]]
        with cupy.cuda.Device(stream.index):
            if stream.convolver is None:
                stream.convolver = convolutions.handle(stream.stream.ptr)
            convolutions.run(stream.convolver, convolution, *addresses)

    @cached_property
    def _nccl(self) -> Any | None:
        return library()

    @property
    def has_nccl(self) -> bool:
        return self._nccl is not None

    def nccl_id(self) -> tuple[int, ...]:
        assert self._nccl is not None
        return tuple(self._nccl.get_unique_id())

    def communicator(self, device: str, size: int, ident: Sequence[int], rank: int) -> Communicator:
        with cupy.cuda.Device(self.devices.index(device)):
            return Communicator(self._nccl, size, ident, rank)

    def exchange(
        self, stream: DeviceStream, communicator: Communicator, sends: Sequence[tuple[Flat, int]],
        receives: Sequence[tuple[Flat, int]],
    ) -> None:  # fmt: skip
        there, here = (
            [(address(flat), int(flat.raw.size), flat.raw.dtype, peer) for flat, peer in given]
            for given in (sends, receives)
        )
        with cupy.cuda.Device(stream.index):
            communicator.exchange(there, here, stream.stream.ptr)

    def all_reduce(self, stream: DeviceStream, communicator: Communicator, pairs: Sequence[tuple[Flat, Flat]]) -> None:
        given = [(address(a), address(b), int(a.raw.size), a.raw.dtype) for a, b in pairs]
        with cupy.cuda.Device(stream.index):
            communicator.all_reduce(given, stream.stream.ptr)

    def record(self, stream: DeviceStream) -> Any:
        with cupy.cuda.Device(stream.index):
            event = cupy.cuda.Event(disable_timing=True)
            stream.stream.record(event)
        return event

    def wait(self, stream: DeviceStream, event: Any) -> None:
        with cupy.cuda.Device(stream.index):
            stream.stream.wait_event(event)

    def wait_on_host(self, event: Any) -> None:
        event.synchronize()

    def synchronize(self, stream: DeviceStream) -> None:
        with cupy.cuda.Device(stream.index):
            stream.stream.synchronize()

    @contextmanager
    def namespace(self, stream: DeviceStream) -> Iterator[Any]:
        with cupy.cuda.Device(stream.index), stream.stream:
            yield cupy

    def free(self, device: str) -> int:
        with cupy.cuda.Device(self.devices.index(device)):
            return int(cuda_runtime.memGetInfo()[0]) + int(cupy.get_default_memory_pool().free_bytes())

    def begin_capture(self, stream: DeviceStream) -> bool:
        with cupy.cuda.Device(stream.index), stream.stream:
            stream.stream.begin_capture()
        return True

    def end_capture(self, stream: DeviceStream) -> Any:
        with cupy.cuda.Device(stream.index), stream.stream:
            return stream.stream.end_capture()

    def replay(self, stream: DeviceStream, graph: Any) -> None:
        with cupy.cuda.Device(stream.index):
            graph.launch(stream=stream.stream)
