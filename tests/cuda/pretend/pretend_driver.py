# ruff: noqa: N802, N815 - the functions have their C names
"""A pretend driver under the real CuPy and the real Numba CUDA: their own code runs, on a machine without a GPU.

CuPy's wheel has CUDA's runtime inside (``libcudart_static``); its functions are found by their names in the library's
table of symbols, and their first bytes become a jump to the functions here. Numba asks the driver's library for its
functions by name, and a library of jumps, called as the driver's is, answers with the functions here too. A kernel is
compiled by numba-cuda for compute capability 9.0 and linked to machine code as on a device; its launch is taken apart
as the driver takes it, and the same body is run by Numba for the processor over the memory that the launch points to.

What is looked at, since the real driver is silent about it or stops the program:

- work is done late, and streams take turns at random: what no event orders is done in another order each time;
- every address belongs to a live block of the device that works on it; blocks are filled when made and when freed;
- memory that is not pinned is read when it is asked for, pinned memory when its copy's turn comes;
- kernels and events are used with the device current that they belong to, and no work goes to the default stream;
- a capture: what may not be asked for meanwhile, what crosses its border, who joined it and never came back.

A rule that is broken is in `Driver.broken`, and the call fails with CUDA's own error. What is **not** seen: how fast
anything is, the machine code itself, and whatever the real driver does that is written down nowhere.
"""

from __future__ import annotations

import atexit
import ctypes
import math
import mmap
import random
import struct
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OUT_OF_MEMORY, INVALID_DEVICE, INVALID_HANDLE, NOT_READY, PEER_ENABLED, NOT_SUPPORTED = 2, 101, 400, 600, 704, 801
INVALID_VALUE, UNSUPPORTED, UNJOINED, ISOLATION, IMPLICIT, CAPTURED, UNKNOWN = 1, 900, 904, 905, 906, 907, 999
NAMES = {
    OUT_OF_MEMORY: "cudaErrorMemoryAllocation", INVALID_DEVICE: "cudaErrorInvalidDevice",
    INVALID_HANDLE: "cudaErrorInvalidResourceHandle", NOT_READY: "cudaErrorNotReady",
    PEER_ENABLED: "cudaErrorPeerAccessAlreadyEnabled", NOT_SUPPORTED: "cudaErrorNotSupported",
    INVALID_VALUE: "cudaErrorInvalidValue", UNSUPPORTED: "cudaErrorStreamCaptureUnsupported",
    UNJOINED: "cudaErrorStreamCaptureUnjoined", ISOLATION: "cudaErrorStreamCaptureIsolation",
    IMPLICIT: "cudaErrorStreamCaptureImplicit", CAPTURED: "cudaErrorCapturedEvent", UNKNOWN: "cudaErrorUnknown",
}  # fmt: skip

TYPES = {"p": ctypes.c_uint64, "i": ctypes.c_int, "u": ctypes.c_uint, "z": ctypes.c_size_t, "s": ctypes.c_char_p}
ATTRIBUTES = {75: 9, 76: 0, 16: 132, 1: 1024, 10: 32, 39: 2048, 8: 49152, 97: 232448, 41: 1, 12: 65536, 81: 233472}
"""Of a device, by ``CUdevice_attribute``: capability 9.0, and what numba-cuda and CuPy ask for besides."""


class Refused(Exception):
    """A call that CUDA refuses; `broken` if it is against a rule of ours."""

    def __init__(self, code: int, why: str, broken: bool = True) -> None:
        super().__init__(why)
        self.code, self.why, self.broken = code, why, broken


@dataclass
class Block:
    """Memory: of a device, or pinned of the host (device −1)."""

    address: int
    size: int
    device: int
    keep: Any


@dataclass
class Graph:
    """What was captured: pieces of work, each with those that must be done before."""

    origin: int
    nodes: list[tuple[Callable[[], None], frozenset[int]]] = field(default_factory=list)
    streams: list[Any] = field(default_factory=list)

    def before(self, ends: frozenset[int]) -> set[int]:
        """All nodes that some ends come after, and they themselves."""
        found: set[int] = set()
        todo = list(ends)
        while todo:
            node = todo.pop()
            if node not in found:
                found.add(node)
                todo += self.nodes[node][1]
        return found

    def run(self, chance: random.Random) -> None:
        """Do everything, in some order that is allowed."""
        done: set[int] = set()
        left = list(range(len(self.nodes)))
        while left:
            ready = [node for node in left if self.nodes[node][1] <= done]
            node = chance.choice(ready)
            self.nodes[node][0]()
            done.add(node)
            left.remove(node)


@dataclass
class Stream:
    """A queue of work."""

    handle: int
    device: int
    queue: deque[Any] = field(default_factory=deque)
    graph: Graph | None = None
    ends: frozenset[int] = frozenset()
    destroyed: bool = False


@dataclass
class Event:
    """How often it was recorded, how often its moment has come, and where in a graph it is."""

    device: int
    timed: bool
    recorded: int = 0
    passed: int = 0
    moment: float = 0.0
    captured: tuple[Graph, frozenset[int]] | None = None


@dataclass
class Kernel:
    """A kernel of numba-cuda's: its body for the processor, the types of its arguments, and whether its grid has a
    meaning: then the body for the processor takes that before the arguments."""

    name: str
    types: tuple[Any, ...]
    run: Callable[..., None]
    placed: bool


class Driver:
    """The pretend driver.

    Parameters
    ----------
    devices : how many
    memory : bytes that each has
    seed : of the order in which streams take turns
    """

    def __init__(self, devices: int = 2, memory: int = 8 << 30, seed: int = 0) -> None:
        self.reachable = True
        self.devices, self.memory = devices, memory
        self.chance = random.Random(seed)
        self.here = threading.local()
        self.blocks: dict[int, Block] = {}
        self.used = [0] * devices
        self.streams = {0: Stream(0, 0)}
        self.events: dict[int, Event] = {}
        self.graphs: dict[int, Graph] = {}
        self.kernels: dict[str, Kernel] = {}
        self.functions: dict[int, Kernel] = {}
        self.peers: set[tuple[int, int]] = set()
        self.handles = 0x1000
        self.broken: list[str] = []
        self.calls: dict[str, int] = {}
        self.unknown: dict[str, int] = {}
        self.launched: dict[str, int] = {}
        self.capturing: Graph | None = None
        self.texts: dict[int, Any] = {}
        self.tables: list[Any] = []
        self.patched: list[int] = []
        self._keep: list[Any] = []

    # ---- how calls come in --------------------------------------------------------------------------------------

    def callback(self, name: str, signature: str) -> Any:
        """A method as a function of C."""
        return self.function(name, getattr(self, name), signature)

    def function(self, name: str, method: Callable[..., Any], signature: str) -> Any:
        """Some Python as a function of C, whose result is CUDA's error or 0."""

        def call(*arguments: Any) -> int:
            self.calls[name] = self.calls.get(name, 0) + 1
            try:
                return method(*arguments) or 0
            except Refused as refused:
                if refused.broken:
                    self.broken.append(f"{name}: {refused.why}")
                return refused.code
            except BaseException as error:  # nothing may leave a function of C
                self.broken.append(f"{name}: {type(error).__name__}: {error}")
                return UNKNOWN

        made = ctypes.CFUNCTYPE(ctypes.c_int, *(TYPES[letter] for letter in signature))(call)
        self._keep.append(made)
        return made

    def missing(self, name: str) -> Any:
        """A function that is not here: refused, and its name kept."""

        def call() -> int:
            self.unknown[name] = self.unknown.get(name, 0) + 1
            self.broken.append(f"{name} is not known to the pretend driver")
            return NOT_SUPPORTED

        made = ctypes.CFUNCTYPE(ctypes.c_int)(call)
        self._keep.append(made)
        return made

    def handle(self) -> int:
        """A new handle."""
        self.handles += 16
        return self.handles

    def retire(self) -> None:
        """From now on every function does nothing: Python is about to end, and its own can be called no more."""
        for address in self.patched:
            ctypes.memmove(address, b"\x31\xc0\xc3", 3)  # xor eax, eax; ret
        for table in self.tables:
            for n in range(len(table)):
                table[n] = self.patched[0]

    @property
    def current(self) -> int:
        """The current device of this thread; −1 if there is no context."""
        stack: list[int] = getattr(self.here, "stack", [])
        return stack[-1] if stack else -1

    def become(self, device: int) -> None:
        """Make a device the current one."""
        if not 0 <= device < self.devices:
            raise Refused(INVALID_DEVICE, f"no device {device}", broken=False)
        self.here.stack = [*getattr(self.here, "stack", [])[:-1], device]

    # ---- memory -------------------------------------------------------------------------------------------------

    def allocate(self, size: int, device: int) -> int:
        """Memory whose numbers mean nothing."""
        keep = np.full(size + 512, 0xA5, np.uint8)
        address = -(-keep.ctypes.data // 512) * 512
        self.blocks[address] = Block(address, size, device, keep)
        return address

    def block(self, address: int) -> Block | None:
        """The block that an address is in."""
        for block in self.blocks.values():
            if block.address <= address < block.address + max(block.size, 1):
                return block
        return None

    def on(self, device: int, address: int, size: int, what: str) -> None:
        """Some bytes must be a device's; where there are none any address will do."""
        if not size:
            return
        block = self.block(address)
        if block is None or address + size > block.address + block.size:
            raise Refused(INVALID_VALUE, f"{what}: {size} bytes at {address:#x} are no memory of a device")
        if block.device != device:
            raise Refused(INVALID_VALUE, f"{what}: memory of device {block.device}, not of {device}")

    def free_block(self, address: int) -> None:
        """Free a block: everything is done first, as in CUDA, and its numbers are spoilt."""
        if not address:
            return
        self.pump()
        block = self.blocks.pop(address, None)
        if block is None:
            raise Refused(INVALID_VALUE, f"freed twice, or never had: {address:#x}")
        if block.device >= 0:
            self.used[block.device] -= block.size
        ctypes.memset(address, 0x5A, block.size)

    # ---- work ---------------------------------------------------------------------------------------------------

    def stream(self, handle: int) -> Stream:
        """A stream; no work of ours goes to the default one."""
        if handle in (0, 1, 2):
            self.broken.append("work for the default stream")
            return self.streams[0]
        if handle not in self.streams or self.streams[handle].destroyed:
            raise Refused(INVALID_HANDLE, f"no stream {handle:#x}")
        return self.streams[handle]

    def ask(self, stream: Stream, work: Callable[[], None]) -> None:
        """Put work into a stream's queue, or into the graph that it is captured to."""
        if stream.graph is not None:
            stream.graph.nodes.append((work, stream.ends))
            stream.ends = frozenset([len(stream.graph.nodes) - 1])
        else:
            stream.queue.append(work)

    def pump(self, until: Callable[[], bool] | None = None) -> None:
        """Do work, streams taking turns at random, until something is so or all is done."""
        while not (until and until()):
            self.streams = {n: s for n, s in self.streams.items() if s.queue or not s.destroyed}
            ready = [s for s in self.streams.values() if s.queue and not self._waits(s.queue[0])]
            if not ready:
                if until or any(s.queue for s in self.streams.values()):
                    raise Refused(UNKNOWN, "streams wait for each other for ever")
                return
            head = self.chance.choice(ready).queue.popleft()
            if not isinstance(head, tuple):
                head()
            elif head[0] == "record":
                head[1].passed, head[1].moment = head[2], time.perf_counter()

    def _waits(self, head: Any) -> bool:
        return isinstance(head, tuple) and head[0] == "wait" and head[1].passed < head[2]

    def not_captured(self, what: str, stream: Stream | None = None) -> None:
        """Refuse what a capture forbids: on one of its streams, or anywhere."""
        if self.capturing is not None and (stream is None or stream.graph is not None):
            raise Refused(UNSUPPORTED, f"{what} while a graph is captured")

    # ---- CUDA's runtime, as CuPy calls it -----------------------------------------------------------------------

    def cudaGetDeviceCount(self, out: int) -> None:
        put(out, self.devices)

    def cudaGetDevice(self, out: int) -> None:
        put(out, max(self.current, 0))

    def cudaSetDevice(self, device: int) -> None:
        self.become(device)

    def cudaDriverGetVersion(self, out: int) -> None:
        put(out, 13000)

    cudaRuntimeGetVersion = cudaDriverGetVersion

    def cudaDeviceGetAttribute(self, out: int, attribute: int, device: int) -> None:
        put(out, ATTRIBUTES.get(attribute, 0))

    def cudaDeviceCanAccessPeer(self, out: int, device: int, peer: int) -> None:
        put(out, int(self.reachable and device != peer))

    def cudaDeviceEnablePeerAccess(self, peer: int, flags: int) -> None:
        if (self.current, peer) in self.peers:
            raise Refused(PEER_ENABLED, "peer access", broken=False)
        self.peers.add((self.current, peer))

    def cudaMalloc(self, out: int, size: int) -> None:
        self.not_captured("memory is allocated")
        device = max(self.current, 0)
        if self.used[device] + size > self.memory:
            raise Refused(OUT_OF_MEMORY, "no memory", broken=False)
        self.used[device] += size
        put(out, self.allocate(size, device), "Q")

    def cudaFree(self, address: int) -> None:
        self.free_block(address)

    def cudaHostAlloc(self, out: int, size: int, flags: int) -> None:
        self.not_captured("pinned memory is allocated")
        put(out, self.allocate(size, -1), "Q")

    def cudaFreeHost(self, address: int) -> None:
        self.free_block(address)

    def cudaPointerGetAttributes(self, out: int, address: int) -> None:
        block = self.block(address)
        kind, device = (0, -2) if block is None else (1, 0) if block.device < 0 else (2, block.device)
        ctypes.memmove(out, struct.pack("<iiQQ", kind, device, address if kind == 2 else 0, address), 24)

    def cudaMemGetInfo(self, free: int, total: int) -> None:
        put(free, self.memory - self.used[max(self.current, 0)], "Q")
        put(total, self.memory, "Q")

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        queue = self.stream(stream)
        if kind in (1, 3):
            self.on(queue.device, target, size, "the target of a copy")
        if kind in (2, 3):
            self.on(queue.device, source, size, "the source of a copy")
        pinned = self.block(source) is not None
        if kind == 1 and not pinned:
            self.not_captured("a copy from memory that is not pinned", queue)
            taken = ctypes.string_at(source, size)
            self.ask(queue, lambda: ctypes.memmove(target, taken, size))
        else:
            self.ask(queue, lambda: ctypes.memmove(target, source, size))
            if kind == 2 and self.block(target) is None:  # CUDA waits itself
                self.not_captured("a copy to memory that is not pinned", queue)
                self.pump(lambda: not queue.queue)

    def cudaMemcpyPeerAsync(self, target: int, there: int, source: int, here: int, size: int, stream: int) -> None:
        self.on(there, target, size, "the target of a copy between devices")
        self.on(here, source, size, "the source of a copy between devices")
        self.ask(self.stream(stream), lambda: ctypes.memmove(target, source, size))

    def cudaMemsetAsync(self, target: int, value: int, size: int, stream: int) -> None:
        queue = self.stream(stream)
        self.on(queue.device, target, size, "what is cleared")
        self.ask(queue, lambda: ctypes.memset(target, value, size))

    def cudaStreamCreateWithFlags(self, out: int, flags: int) -> None:
        if not flags & 1:
            self.broken.append("a stream that waits for the default one")
        made = Stream(self.handle(), max(self.current, 0))
        self.streams[made.handle] = made
        put(out, made.handle, "Q")

    def cudaStreamCreate(self, out: int) -> None:
        self.cudaStreamCreateWithFlags(out, 0)

    def cudaStreamCreateWithPriority(self, out: int, flags: int, priority: int) -> None:
        self.cudaStreamCreateWithFlags(out, flags)

    def cudaStreamDestroy(self, handle: int) -> None:
        # its work is done later, as on a device: whoever collects it may be in the midst of anything, of compiling too
        self.stream(handle).destroyed = True

    def cudaStreamSynchronize(self, handle: int) -> None:
        queue = self.stream(handle)
        self.not_captured("the host waits for a stream", queue)
        self.pump(lambda: not queue.queue)

    def cudaStreamIsCapturing(self, handle: int, out: int) -> None:
        put(out, int(handle in self.streams and self.streams[handle].graph is not None))

    def cudaStreamWaitEvent(self, handle: int, event: int, flags: int) -> None:
        queue, moment = self.stream(handle), self.event(event)
        if moment.captured is not None:
            graph, ends = moment.captured
            if graph is not self.capturing:
                raise Refused(ISOLATION, "a wait for an event of a graph that is no longer captured")
            if queue.graph is None:  # it joins the capture
                queue.graph, queue.ends = graph, frozenset()
                graph.streams.append(queue)
            queue.ends |= ends
        elif queue.graph is not None:
            raise Refused(ISOLATION, "a stream that is captured waits for an event from outside")
        else:
            queue.queue.append(("wait", moment, moment.recorded))

    def cudaStreamBeginCapture(self, handle: int, mode: int) -> None:
        queue = self.stream(handle)
        if self.capturing is not None:
            raise Refused(UNSUPPORTED, "two captures at a time")
        self.capturing = queue.graph = Graph(handle)
        queue.ends = frozenset()
        queue.graph.streams.append(queue)

    def cudaStreamEndCapture(self, handle: int, out: int) -> None:
        queue = self.stream(handle)
        graph = queue.graph
        if graph is None or graph.origin != handle:
            raise Refused(UNSUPPORTED, "a capture is ended on another stream than it was begun on")
        reached = graph.before(queue.ends)
        for stream in graph.streams:
            joined = stream.ends <= reached
            stream.graph, stream.ends = None, frozenset()
            if not joined:
                raise Refused(UNJOINED, "a stream joined the capture and was not joined again")
        self.capturing = None
        made = self.handle()
        self.graphs[made] = graph
        put(out, made, "Q")

    def cudaGraphInstantiate(self, out: int, graph: int, flags: int) -> None:
        put(out, graph, "Q")

    def cudaGraphUpload(self, graph: int, handle: int) -> None:
        self.stream(handle)

    def cudaGraphLaunch(self, graph: int, handle: int) -> None:
        found = self.graphs[graph]
        self.ask(self.stream(handle), lambda: found.run(self.chance))

    def cudaGraphDestroy(self, graph: int) -> None:
        pass

    cudaGraphExecDestroy = cudaGraphDestroy

    def event(self, handle: int) -> Event:
        """An event."""
        if handle not in self.events:
            raise Refused(INVALID_HANDLE, f"no event {handle:#x}")
        return self.events[handle]

    def cudaEventCreateWithFlags(self, out: int, flags: int) -> None:
        made = self.handle()
        self.events[made] = Event(max(self.current, 0), not flags & 2)
        put(out, made, "Q")

    def cudaEventCreate(self, out: int) -> None:
        self.cudaEventCreateWithFlags(out, 0)

    def cudaEventDestroy(self, handle: int) -> None:
        self.event(handle)
        del self.events[handle]

    def cudaEventRecord(self, handle: int, stream: int) -> None:
        moment, queue = self.event(handle), self.stream(stream)
        if moment.device != queue.device:
            raise Refused(INVALID_HANDLE, f"an event of device {moment.device} on a stream of device {queue.device}")
        if queue.graph is not None:
            moment.captured = queue.graph, queue.ends
        else:
            moment.captured = None
            moment.recorded += 1
            queue.queue.append(("record", moment, moment.recorded))

    def cudaEventQuery(self, handle: int) -> int:
        moment = self.event(handle)
        if moment.captured is not None:
            raise Refused(CAPTURED, "a captured event is asked for")
        if self.chance.random() < 0.5:  # something may have been done meanwhile
            ready = [s for s in self.streams.values() if s.queue and not self._waits(s.queue[0])]
            if ready:
                before = sum(len(s.queue) for s in self.streams.values())
                self.pump(lambda: sum(len(s.queue) for s in self.streams.values()) < before)
        return 0 if moment.passed >= moment.recorded else NOT_READY

    def cudaEventSynchronize(self, handle: int) -> None:
        moment = self.event(handle)
        if moment.captured is not None:
            raise Refused(CAPTURED, "the host waits for a captured event")
        self.pump(lambda: moment.passed >= moment.recorded)

    def cudaEventElapsedTime(self, out: int, begin: int, end: int) -> None:
        first, second = self.event(begin), self.event(end)
        if not (first.timed and second.timed and first.passed and second.passed):
            raise Refused(INVALID_HANDLE, "the time between events that keep none, or have not come")
        ctypes.memmove(out, struct.pack("<f", 1e3 * (second.moment - first.moment)), 4)

    def cudaDeviceSynchronize(self) -> None:
        self.not_captured("the host waits for a device")
        self.pump()

    def cudaGetLastError(self) -> None:
        pass

    cudaPeekAtLastError = cudaGetLastError

    # ---- the driver, as Numba and cuda.core call it -------------------------------------------------------------

    def cuInit(self, flags: int) -> None:
        pass

    def cuDriverGetVersion(self, out: int) -> None:
        put(out, 13000)

    def cuGetErrorName(self, code: int, out: int) -> None:
        if code not in self.texts:
            self.texts[code] = ctypes.create_string_buffer(NAMES.get(code, "cudaErrorOther").encode())
        put(out, ctypes.addressof(self.texts[code]), "Q")

    cuGetErrorString = cuGetErrorName

    def cuDeviceGetCount(self, out: int) -> None:
        put(out, self.devices)

    def cuDeviceGet(self, out: int, index: int) -> None:
        if not 0 <= index < self.devices:
            raise Refused(INVALID_DEVICE, "no such device", broken=False)
        put(out, index)

    def cuDeviceGetName(self, out: int, size: int, device: int) -> None:
        ctypes.memmove(out, b"Pretend device\0", 15)

    def cuDeviceGetUuid(self, out: int, device: int) -> None:
        ctypes.memset(out, device + 1, 16)

    def cuDeviceTotalMem(self, out: int, device: int) -> None:
        put(out, self.memory, "Q")

    def cuDeviceGetAttribute(self, out: int, attribute: int, device: int) -> None:
        put(out, ATTRIBUTES.get(attribute, 0))

    cuDeviceCanAccessPeer = cudaDeviceCanAccessPeer

    def cuDevicePrimaryCtxRetain(self, out: int, device: int) -> None:
        put(out, 0xC000 + device, "Q")

    def cuDevicePrimaryCtxRelease(self, device: int) -> None:
        pass

    def cuDevicePrimaryCtxGetState(self, device: int, flags: int, active: int) -> None:
        put(flags, 0)
        put(active, 1)

    def cuCtxGetCurrent(self, out: int) -> None:
        put(out, 0 if self.current < 0 else 0xC000 + self.current, "Q")

    def cuCtxSetCurrent(self, context: int) -> None:
        self.become(context - 0xC000)

    def cuCtxPushCurrent(self, context: int) -> None:
        self.here.stack = [*getattr(self.here, "stack", []), context - 0xC000]

    def cuCtxPopCurrent(self, out: int) -> None:
        put(out, 0xC000 + self.here.stack.pop(), "Q")

    def cuCtxGetDevice(self, out: int) -> None:
        put(out, self.current)

    def cuMemGetInfo(self, free: int, total: int) -> None:
        self.cudaMemGetInfo(free, total)

    def cuStreamGetCtx(self, handle: int, out: int) -> None:
        put(out, 0xC000 + self.stream(handle).device, "Q")

    def cuStreamGetDevice(self, handle: int, out: int) -> None:
        put(out, self.stream(handle).device)

    def cuStreamIsCapturing(self, handle: int, out: int) -> None:
        self.cudaStreamIsCapturing(handle, out)

    def cuStreamGetFlags(self, handle: int, out: int) -> None:
        put(out, 1)

    def cuLibraryLoadData(
        self, out: int, code: int, options: int, values: int, count: int, more: int, others: int, many: int
    ) -> None:
        self.not_captured("a kernel is loaded")
        header = ctypes.string_at(code, 20)
        if header[:4] != b"\x7fELF" or struct.unpack("<H", header[18:20])[0] != 190:
            raise Refused(INVALID_VALUE, "what is loaded is no machine code of a GPU")
        put(out, self.handle(), "Q")

    def cuLibraryUnload(self, library: int) -> None:
        pass

    def cuLibraryGetKernel(self, out: int, library: int, name: bytes) -> None:
        if name.decode() not in self.kernels:
            raise Refused(INVALID_HANDLE, f"no kernel {name!r}")
        made = self.handle()
        self.functions[made] = self.kernels[name.decode()]
        put(out, made, "Q")

    def cuKernelGetFunction(self, out: int, kernel: int) -> None:
        put(out, kernel, "Q")

    def cuKernelGetAttribute(self, out: int, attribute: int, kernel: int, device: int) -> None:
        put(out, {0: 1024, 4: 32}.get(attribute, 0))

    def cuFuncGetAttribute(self, out: int, attribute: int, function: int) -> None:
        put(out, {0: 1024, 4: 32}.get(attribute, 0))

    def cuLaunchKernelEx(self, config: int, function: int, parameters: int, extra: int) -> None:
        grid = struct.unpack("<7I", ctypes.string_at(config, 28))
        (stream,) = struct.unpack("<Q", ctypes.string_at(config + 32, 8))
        self.launch(function, grid[:3], grid[3:6], grid[6], stream, parameters)

    def cuLaunchKernel(
        self, function: int, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int, stream: int,
        parameters: int, extra: int,
    ) -> None:  # fmt: skip
        self.launch(function, (gx, gy, gz), (bx, by, bz), shared, stream, parameters)

    def launch(
        self, function: int, blocks: tuple[int, ...], threads: tuple[int, ...], shared: int, handle: int,
        parameters: int,
    ) -> None:  # fmt: skip
        """Take a launch apart, and put the work into its stream."""
        kernel, queue = self.functions[function], self.stream(handle)
        if queue.device != self.current:
            raise Refused(INVALID_HANDLE, f"{kernel.name}: a stream of device {queue.device} on device {self.current}")
        few = 0 < blocks[0] < 1 << 31 and all(0 < n < 1 << 16 for n in blocks[1:])
        if not (few and 0 < math.prod(threads) <= 1024 and min(threads) > 0 and shared <= 48 << 10):
            raise Refused(INVALID_VALUE, f"{kernel.name}: a grid of {blocks} × {threads}, {shared} bytes shared")
        pointers = iter(range(parameters, parameters + 8 * 7 * len(kernel.types), 8))

        def number(kind: Any) -> Any:
            (address,) = struct.unpack("<Q", ctypes.string_at(next(pointers), 8))
            dtype = np.dtype(kind)
            return np.frombuffer(ctypes.string_at(address, dtype.itemsize), dtype)[0]

        arguments: list[Any] = []
        for kind in kernel.types:
            if hasattr(kind, "ndim"):
                from numba.np.numpy_support import as_dtype

                meminfo, parent, count, itemsize, data, length, stride = (int(number(np.int64)) for _ in range(7))
                dtype = as_dtype(kind.dtype)
                if (meminfo, parent, itemsize, length, stride) != (0, 0, dtype.itemsize, count, dtype.itemsize):
                    raise Refused(INVALID_VALUE, f"{kernel.name}: an array that is not flat and contiguous")
                self.on(queue.device, data, count * itemsize, kernel.name)
                buffer = (ctypes.c_uint8 * (count * itemsize)).from_address(data or id(self))
                arguments.append(np.frombuffer(buffer, dtype))
            else:
                value = number(str(kind) if str(kind) != "bool" else np.uint8)
                arguments.append(bool(value) if str(kind) == "bool" else value)
        self.launched[kernel.name] = self.launched.get(kernel.name, 0) + 1
        if kernel.placed:
            arguments[:0] = [*blocks, *threads[:2], shared // 4]
        self.ask(queue, lambda: kernel.run(*arguments))


def put(address: int, value: int, form: str = "i") -> None:
    """Write a whole number of four or eight bytes."""
    ctypes.memmove(address, struct.pack(f"<{form}", value), struct.calcsize(form))


RUNTIME = {
    "cudaGetDeviceCount": "p", "cudaGetDevice": "p", "cudaSetDevice": "i", "cudaDriverGetVersion": "p",
    "cudaRuntimeGetVersion": "p", "cudaDeviceGetAttribute": "pii", "cudaDeviceCanAccessPeer": "pii",
    "cudaDeviceEnablePeerAccess": "iu", "cudaMalloc": "pz", "cudaFree": "p", "cudaHostAlloc": "pzu",
    "cudaFreeHost": "p", "cudaPointerGetAttributes": "pp", "cudaMemGetInfo": "pp", "cudaMemcpyAsync": "ppzip",
    "cudaMemcpyPeerAsync": "pipizp",
    "cudaMemsetAsync": "pizp", "cudaStreamCreateWithFlags": "pu", "cudaStreamCreate": "p",
    "cudaStreamCreateWithPriority": "pui", "cudaStreamDestroy": "p", "cudaStreamSynchronize": "p",
    "cudaStreamIsCapturing": "pp", "cudaStreamWaitEvent": "ppu", "cudaStreamBeginCapture": "pi",
    "cudaStreamEndCapture": "pp", "cudaGraphInstantiate": "ppp", "cudaGraphUpload": "pp", "cudaGraphLaunch": "pp",
    "cudaGraphDestroy": "p", "cudaGraphExecDestroy": "p", "cudaEventCreateWithFlags": "pu", "cudaEventCreate": "p",
    "cudaEventDestroy": "p", "cudaEventRecord": "pp", "cudaEventQuery": "p", "cudaEventSynchronize": "p",
    "cudaEventElapsedTime": "ppp", "cudaDeviceSynchronize": "", "cudaGetLastError": "", "cudaPeekAtLastError": "",
}  # fmt: skip
"""What CuPy may call, with the kinds of its arguments."""

DRIVER = {
    "cuInit": "u", "cuGetErrorName": "ip", "cuGetErrorString": "ip", "cuDriverGetVersion": "p",
    "cuDeviceGetCount": "p", "cuDeviceGet": "pi", "cuDeviceGetName": "pii",
    "cuDeviceGetUuid": "pi", "cuDeviceTotalMem": "pi", "cuDeviceGetAttribute": "pii", "cuDeviceCanAccessPeer": "pii",
    "cuDevicePrimaryCtxRetain": "pi", "cuDevicePrimaryCtxRelease": "i", "cuDevicePrimaryCtxGetState": "ipp",
    "cuCtxGetCurrent": "p", "cuCtxSetCurrent": "p", "cuCtxPushCurrent": "p", "cuCtxPopCurrent": "p",
    "cuCtxGetDevice": "p", "cuMemGetInfo": "pp", "cuStreamGetCtx": "pp", "cuStreamGetDevice": "pp",
    "cuStreamIsCapturing": "pp", "cuStreamGetFlags": "pp", "cuLibraryLoadData": "ppppuppu",
    "cuLibraryUnload": "p", "cuLibraryGetKernel": "pps", "cuKernelGetFunction": "pp", "cuKernelGetAttribute": "pipi",
    "cuFuncGetAttribute": "pip", "cuLaunchKernelEx": "pppp", "cuLaunchKernel": "puuuuuuuppp",
}  # fmt: skip
"""What Numba and ``cuda.core`` may call."""


def install(driver: Driver, folder: Path) -> None:
    """Put a pretend driver under CuPy and Numba, for the rest of this process. Before either is used.

    Parameters
    ----------
    driver : the pretend driver
    folder : for the library that is made
    """
    functions = {name: driver.callback(name, signature) for name, signature in DRIVER.items()}

    def look_up(name: bytes, out: int, version: int, flags: int, status: int) -> None:
        text = name.decode()
        found = address_of(getattr(loaded, text)) if text in functions else 0
        put(out, found, "Q")
        if status:
            put(status, 0 if found else 1)
        if not found:
            raise Refused(500, text, broken=False)

    functions["cuGetProcAddress"] = driver.function("cuGetProcAddress", look_up, "spipp")
    for name, old in (("cuGetProcAddress_v2", "cuGetProcAddress"), ("cuDeviceTotalMem_v2", "cuDeviceTotalMem")):
        functions[name] = functions[old]
    loaded = library(driver, "libcuda.so.1", functions, folder)
    _patch_runtime(driver)
    _watch_numba(driver)
    atexit.register(driver.retire)


def address_of(function: Any) -> int:
    """Where a function of C begins."""
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def library(driver: Driver, name: str, functions: dict[str, Any], folder: Path) -> ctypes.CDLL:
    """Make and load a library of jumps: whoever asks for one of that name from now on is given it."""
    listed = list(functions)
    jumps = [f".globl {f}\n.type {f}, @function\n{f}: jmp *table+{8 * n}(%rip)" for n, f in enumerate(listed)]
    table = f"table: .globl pretend_table\npretend_table: .zero {8 * len(listed)}"  # the first of its names is local
    source, made = folder / f"{name}.s", folder / name
    parts = [".text", *jumps, ".bss", ".align 8", table, '.section .note.GNU-stack,"",@progbits', ""]
    source.write_text("\n".join(parts))
    versions = folder / f"{name}.map"  # libraries ask for functions of a version, which is called as the library is
    versions.write_text(f"{name} {{ global: *; }};\n")
    options = ["-shared", "-nostdlib", f"-Wl,-soname,{name}", f"-Wl,--version-script={versions}"]
    subprocess.run(["gcc", *options, "-o", str(made), str(source)], check=True)
    loaded = ctypes.CDLL(str(made), ctypes.RTLD_GLOBAL)
    slots = (ctypes.c_void_p * len(listed)).in_dll(loaded, "pretend_table")
    for n, function in enumerate(functions.values()):
        slots[n] = address_of(function)
    driver.tables.append(slots)
    return loaded


def undefined(path: str, prefix: str) -> Sequence[str]:
    """Functions that a library expects others to have."""
    command = ["nm", "-D", "--undefined-only", path]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for line in listed.splitlines() if (name := line.split()[-1].partition("@")[0]).startswith(prefix)]


def _patch_runtime(driver: Driver) -> None:
    """Turn the functions of the runtime that is linked into CuPy into jumps to the pretend driver's."""
    from cupy_backends.cuda.api import runtime

    path = runtime.__file__
    listed = subprocess.run(["nm", path], capture_output=True, text=True, check=True).stdout
    symbols = {
        parts[2]: int(parts[0], 16)
        for parts in map(str.split, listed.splitlines())
        if len(parts) == 3 and parts[1] in "tT" and parts[2].startswith("cuda") and parts[2][4:5].isupper()
    }
    assert set(RUNTIME) <= set(symbols), set(RUNTIME) - set(symbols)
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path)]
    base = min(int(line[0].partition("-")[0], 16) for line in maps)
    libc = ctypes.CDLL(None, use_errno=True)
    texts = {"cudaGetErrorName", "cudaGetErrorString"}
    for name, offset in symbols.items():
        if name in texts:
            made = _error_text(driver)
        else:
            made = driver.callback(name, RUNTIME[name]) if name in RUNTIME else driver.missing(name)
        address = base + offset
        page = address & ~(mmap.PAGESIZE - 1)
        assert libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(2 * mmap.PAGESIZE), 7) == 0
        driver.patched.append(address)
        jump = b"\x48\xb8" + struct.pack("<Q", address_of(made)) + b"\xff\xe0"  # mov rax, …; jmp rax
        ctypes.memmove(address, jump, len(jump))


def _error_text(driver: Driver) -> Any:
    texts = {code: ctypes.create_string_buffer(name.encode()) for code, name in NAMES.items()}
    other = ctypes.create_string_buffer(b"cudaErrorOther")
    made = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_int)(lambda code: ctypes.addressof(texts.get(code, other)))
    driver._keep += [made, texts, other]
    return made


def _watch_numba(driver: Driver) -> None:
    """Know every kernel that numba-cuda compiles by the name that it has in the machine code."""
    from numba.cuda import dispatcher

    from minialex_cuda.runtime.kernel import KERNELS, GridKernel

    original = dispatcher._Kernel.__init__

    def initialise(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        name = self.py_func.__name__
        known = KERNELS[name]
        made = Kernel(name, tuple(self.argument_types), known.host, isinstance(known, GridKernel))
        driver.kernels[self.entry_name] = made

    dispatcher._Kernel.__init__ = initialise
