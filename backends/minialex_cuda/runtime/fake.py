"""A runtime without a device: arrays in host memory, kernels compiled for the processor or simulated.

With ``NUMBA_ENABLE_CUDASIM=1`` in the environment, kernels run under Numba's CUDA simulator, which checks every index;
otherwise they are compiled for the processor. ``cuda:0`` and ``cuda:1`` are pretend devices: the same memory under two
names. The backend is tested this way, and can be explored on a laptop; it is not a fast way to compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import config
from numpy.typing import NDArray

from minialex.errors import ResourceError
from minialex_cuda.runtime.array import Flat, Memory
from minialex_cuda.runtime.kernel import Grid, Kernel
from minialex_cuda.runtime.protocol import Convolution, Precision, Product, Runtime, Touched, owner

BLOCKS, THREADS = 2, 3
"""Of a simulated launch: few, since every simulated thread is a Python thread, but enough to interleave indices."""

MANTISSA = {"tf32": 10, "bfloat16": 7}
"""Fraction bits that operands keep; float32 has 23."""


def rounded(x: NDArray[np.float32], precision: Precision) -> NDArray[np.float32]:
    """x with its fraction rounded to nearest, ties to even, as tensor cores round operands."""
    if precision == "float32" or x.dtype != np.float32:
        return x
    drop = np.uint32(23 - MANTISSA[precision])
    bits = np.ascontiguousarray(x).view(np.uint32)
    half = (np.uint32(1) << (drop - np.uint32(1))) - np.uint32(1)
    kept = (bits + half + ((bits >> drop) & np.uint32(1))) >> drop << drop
    return np.where(np.isfinite(x), kept.view(np.float32), x)


def widened(x: NDArray[Any], precision: Precision) -> NDArray[Any]:
    """The numbers that a tensor core multiplies: decoded from bfloat16 bits, or rounded."""
    return (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else rounded(x, precision)


def narrowed(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bfloat16 bits of numbers."""
    return (rounded(x, "bfloat16").view(np.uint32) >> 16).astype(np.uint16)


class Locked(bytearray):
    """Memory that an upload may still read after it has returned."""


class FakeStream:
    """A stream whose work is done at once. A test's runtime may defer it: everything goes through `do`."""

    def __init__(self, runtime: FakeRuntime, device: str) -> None:
        self.runtime = runtime
        self.device = device

    def do(self, name: str, work: Callable[[], None], reads: Sequence[Flat], writes: Sequence[Flat]) -> None:
        """Do some work that reads and writes memory; while a graph is captured, record it instead."""
        if self.runtime.captured is None:
            work()
        elif name == "upload":
            raise ResourceError("an upload cannot be part of a graph: its numbers are gone when the graph is replayed")
        else:
            self.runtime.captured.append(work)

    def record(self) -> Any:
        """An event."""
        return None

    def wait(self, event: Any) -> None:
        """Nothing to wait for: all work is done."""

    def synchronize(self) -> None:
        """Nothing to wait for."""
        if self.runtime.captured is not None:
            raise ResourceError("nobody can wait for a stream while a graph is captured: nothing is done")


class FakeRuntime(Runtime):
    """Pretend devices.

    Args:
        devices: number of devices
        memory: bytes of memory of each
    """

    def __init__(self, devices: int = 2, memory: int = 1 << 40) -> None:
        super().__init__(devices)
        self._memory = memory
        self.captured: list[Callable[[], None]] | None = None

    def stream(self, device: str) -> FakeStream:
        return FakeStream(self, device)

    def allocate(self, nbytes: int, device: str, stream: FakeStream) -> Memory:
        if self.captured is not None:
            raise ResourceError("memory cannot be allocated while a graph is captured")
        free = self.free(device)
        if nbytes > free:
            raise MemoryError(f"{device}: needed {nbytes:,} bytes more, {free:,} of {self._memory:,} are free")
        raw = np.full(nbytes, 0xA5, np.uint8)  # uninitialised memory must not look like zeros
        return Memory(raw, nbytes, device, self._in_use)

    def upload(self, stream: FakeStream, source: NDArray[Any], target: Flat) -> None:
        locked = isinstance(owner(source), Locked)
        taken, raw = source.reshape(-1) if locked else source.reshape(-1).copy(), target.raw
        stream.do("upload", lambda: np.copyto(raw, taken), (), (target,))

    def host_bytes(self, nbytes: int) -> NDArray[np.uint8]:
        return np.frombuffer(Locked(nbytes), np.uint8, nbytes)

    def download(self, stream: FakeStream, source: Flat) -> NDArray[Any]:
        stream.synchronize()
        return np.array(source.raw)

    def fetch(self, stream: FakeStream, source: Flat, target: NDArray[Any]) -> Any:
        raw = source.raw
        stream.do("fetch", lambda: np.copyto(target, raw), (source,), ())
        return stream.record()

    def clear(self, stream: FakeStream, target: Flat) -> None:
        raw = target.raw
        stream.do("clear", lambda: raw.fill(0), (), (target,))

    def copy(self, stream: FakeStream, source: Flat, target: Flat) -> None:
        there, here = source.raw, target.raw
        stream.do("copy", lambda: np.copyto(here, there), (source,), (target,))

    def launch(
        self,
        stream: FakeStream,
        kernel: Kernel,
        count: int | Grid,
        arguments: Sequence[Any],
        touched: Touched | None = None,
    ) -> None:
        flats = [(i, a) for i, a in enumerate(arguments) if isinstance(a, Flat)]
        plain = [a.raw if isinstance(a, Flat) else a for a in arguments]

        def work() -> None:
            if config.ENABLE_CUDASIM:
                with warnings.catch_warnings():  # NumPy's overflow warnings, in the simulator's own threads
                    warnings.simplefilter("ignore", RuntimeWarning)
                    if isinstance(count, Grid):
                        kernel.device[count.blocks, count.threads, 0, 4 * count.shared](*plain)
                    else:
                        kernel.device[BLOCKS, THREADS](count, *plain)
            elif isinstance(count, Grid):
                kernel.host(*count.blocks, *count.threads[:2], count.shared, *plain)
            else:
                kernel.host(count, *plain)

        writes = [a for i, a in flats if i in kernel.writes]
        stream.do(kernel.name, work, *(touched or ([a for _, a in flats], writes)))

    def multiply(self, stream: FakeStream, a: Flat, b: Flat, out: Flat, product: Product) -> None:
        m, n, k = product.m, product.n, product.k
        first, second = a.raw[: m * k], b.raw[: k * n]
        target = out.raw[: m * n].reshape(m, n)

        def work() -> None:
            left = widened(first, product.precision).reshape((k, m) if product.transpose_a else (m, k))
            right = widened(second, product.precision).reshape((n, k) if product.transpose_b else (k, n))
            with np.errstate(all="ignore"):
                made = (left.T if product.transpose_a else left) @ (right.T if product.transpose_b else right)
                if target.dtype == np.uint16:
                    made = narrowed(np.ascontiguousarray(made))
                np.add(target, made, out=target) if product.accumulate else np.copyto(target, made)

        stream.do("multiply", work, (a, b, out) if product.accumulate else (a, b), (out,))

    def convolution_bytes(self, device: str, convolution: Convolution) -> int | None:
        return None

    def convolve(
        self,
        stream: FakeStream,
        convolution: Convolution,
        a: Flat,
        b: Flat,
        out: Flat,
        workspace: Flat,
        bias: Flat | None = None,
    ) -> None:
        raise NotImplementedError("the host has no library of convolutions")

    def record(self, stream: FakeStream) -> Any:
        return stream.record()

    def wait(self, stream: FakeStream, event: Any) -> None:
        stream.wait(event)

    def wait_on_host(self, event: Any) -> None:
        """Nothing to wait for: all work is done."""

    def synchronize(self, stream: FakeStream) -> None:
        stream.synchronize()

    @contextmanager
    def namespace(self, stream: FakeStream) -> Iterator[Any]:
        stream.synchronize()
        with np.errstate(all="ignore"):
            yield np

    def free(self, device: str) -> int:
        return self._memory - self._in_use[device]

    def begin_capture(self, stream: FakeStream) -> bool:
        self.captured = []
        return True

    def end_capture(self, stream: FakeStream) -> Any:
        graph, self.captured = self.captured, None
        return graph

    def replay(self, stream: FakeStream, graph: Any) -> None:
        for work in graph:
            work()
