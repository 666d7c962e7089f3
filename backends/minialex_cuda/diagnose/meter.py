"""Measures a GPU's rates with CuPy: matrix products, and copies within it, from the host and to another GPU.

`CupyMeter` takes only the module ``cupy``, so that tests can pass a module that computes on the host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np

from minialex.backend.findings import Copy, Device, Measured
from minialex.errors import ResourceError

SIDE = 8192  # rows and columns of the operands
COPIED = 1 << 29  # bytes, more than any GPU's cache
FROM_HOST = 1 << 28
TRIES = 5
SIZES = (1, 4097, 1 << 26)
"""Bytes copied between devices: one, an odd number, and enough to time."""

FLOAT32, BFLOAT16 = 0, 14  # cudaDataType
NEWEST_WITHOUT_TENSOR = (7, 5)
"""The newest compute capability without tf32 and bfloat16."""

REFUSED = "update the NVIDIA driver; see `nvidia-smi topo -p2p r`"
CHANGED = "switch the IOMMU off in the BIOS: CUDA's programming guide names it as a cause of corrupt direct copies"

SLEEP = r"""
extern "C" __global__ void minialex_sleep(long long cycles) {
    long long begin = clock64();
    while (clock64() - begin < cycles) { }
}
"""


class CupyMeter:
    """Measurements on GPUs.

    Args:
        cupy: the module
        scale: divides the sizes used for measuring
    """

    def __init__(self, cupy: Any, scale: int = 1) -> None:
        self._cupy = cupy
        self._scale = scale

    def free(self, device: int) -> int:
        """Bytes of free memory."""
        with self._cupy.cuda.Device(device):
            return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def measure(self, device: Device) -> Measured:
        """Measure matrix products in every precision of the device, and copies within its memory and from the host.

        Raises:
            ResourceError: If the device has too little free memory, or fails.
        """
        names = ["float32"] if device.capability <= NEWEST_WITHOUT_TENSOR else ["float32", "tf32", "bfloat16"]
        with self._device(device.index) as stream:
            matrix = {name: self._product(name, stream) for name in names}
            return Measured(matrix, self._within(stream), self._from_host(stream), "measured on this machine by CuPy")

    @contextmanager
    def _device(self, index: int) -> Iterator[Any]:
        """Make a device and a new stream current; failures become errors that a user can read."""
        try:
            with self._cupy.cuda.Device(index):
                stream = self._cupy.cuda.Stream(non_blocking=True)
                with stream:
                    yield stream
        except (MemoryError, RuntimeError) as error:  # CuPy's errors are subclasses of these
            raise ResourceError(f"cuda:{index}: {' '.join(str(error).split())}") from None
        finally:
            self._cupy.get_default_memory_pool().free_all_blocks()

    def _best(self, work: Any, stream: Any) -> float:
        """Seconds of the fastest of several tries, by events on a stream."""
        cupy = self._cupy
        found = []
        for _ in range(1 + TRIES):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(stream)
            work(stream)
            end.record(stream)
            end.synchronize()
            found.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        return float(min(found[1:]))

    def _product(self, precision: str, stream: Any) -> float:
        """Floating-point operations per second of a square matrix product by cuBLAS (two-byte values in bfloat16).

        Uses random numbers: zeros draw less power, and a power-limited GPU multiplies them faster.
        """
        cupy = self._cupy
        from_library = cupy.cuda.cublas
        n = max(1, SIDE // self._scale)
        half = precision == "bfloat16"
        kind = BFLOAT16 if half else FLOAT32
        mode = from_library.CUBLAS_COMPUTE_32F_FAST_TF32 if precision == "tf32" else from_library.CUBLAS_COMPUTE_32F
        numbers = np.random.default_rng(0).standard_normal((n, n), np.float32)
        stored = (numbers.view(np.uint32) >> 16).astype(np.uint16) if half else numbers
        a, b, c = cupy.asarray(stored), cupy.asarray(stored.T.copy()), cupy.zeros((n, n), stored.dtype)
        one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
        handle = from_library.create()
        try:

            def work(stream: Any) -> None:
                from_library.setStream(handle, stream.ptr)
                from_library.gemmEx(
                    handle, 0, 0, n, n, n, one.ctypes.data, a.data.ptr, kind, n, b.data.ptr, kind, n,
                    zero.ctypes.data, c.data.ptr, kind, n, mode, -1,
                )  # fmt: skip

            return 2 * n**3 / self._best(work, stream)
        finally:
            from_library.destroy(handle)

    def _within(self, stream: Any) -> float:
        """Bytes per second within its memory, counting reads and writes."""
        size = max(1, COPIED // self._scale)
        source = self._cupy.zeros(size, np.uint8)
        return 2 * size / self._copied(source.data.ptr, size, self._cupy.cuda.runtime.memcpyDeviceToDevice, stream)

    def _from_host(self, stream: Any) -> float:
        """Bytes per second from pinned host memory."""
        size = max(1, FROM_HOST // self._scale)
        pinned = self._cupy.cuda.alloc_pinned_memory(size)
        return size / self._copied(pinned.ptr, size, self._cupy.cuda.runtime.memcpyHostToDevice, stream)

    def _copied(self, source: int, size: int, kind: int, stream: Any) -> float:
        """Seconds to copy bytes at an address to device memory."""
        target = self._cupy.zeros(size, np.uint8)
        copy = self._cupy.cuda.runtime.memcpyAsync
        return self._best(lambda on: copy(target.data.ptr, source, size, kind, on.ptr), stream)

    def copy(self, source: int, target: int, direct: bool) -> Copy:
        """Copy bytes from one device to another with ``cudaMemcpyPeerAsync``, and compare them.

        Without `direct` peer access is switched off, and the driver goes through the host.
        """
        try:
            if source != target:
                self._access(source, target, direct)
            equal, rate = True, 0.0
            for size in SIZES:
                same, rate = self._one(source, target, max(1, size // self._scale))
                equal = equal and same
            return Copy(source, target, direct, equal, rate, mend="" if equal else CHANGED)
        except (MemoryError, RuntimeError) as error:
            return Copy(source, target, direct, False, 0.0, " ".join(str(error).split()), REFUSED)

    def _access(self, source: int, target: int, direct: bool) -> None:
        """Switch peer access on or off, both ways; it is no error if it already is."""
        runtime = self._cupy.cuda.runtime
        change = runtime.deviceEnablePeerAccess if direct else runtime.deviceDisablePeerAccess
        for device, peer in ((source, target), (target, source)):
            with self._cupy.cuda.Device(device):
                try:
                    change(peer)
                except RuntimeError as error:
                    if "PeerAccess" not in str(error):  # …AlreadyEnabled, …NotEnabled
                        raise

    def _one(self, source: int, target: int, size: int) -> tuple[bool, float]:
        cupy = self._cupy
        runtime = cupy.cuda.runtime
        sent = np.random.default_rng(size).integers(0, 256, size, np.uint8)
        with cupy.cuda.Device(target):
            there = cupy.zeros(size, np.uint8)
            runtime.deviceSynchronize()
        with cupy.cuda.Device(source):
            here = cupy.asarray(sent)
            runtime.deviceSynchronize()
            seconds = self._best(
                lambda on: runtime.memcpyPeerAsync(there.data.ptr, target, here.data.ptr, source, size, on.ptr),
                cupy.cuda.Stream(non_blocking=True),
            )
        with cupy.cuda.Device(target):
            return bool(np.array_equal(cupy.asnumpy(there), sent)), size / seconds

    @contextmanager
    def disturbed(self, devices: Sequence[int], seed: int) -> Iterator[None]:
        """Keep each device busy at random moments, for random times, from a thread of its own.

        A kernel that waits on every multiprocessor holds up the work of the device's other streams, graphs included,
        while copies go on: anything ordered only by luck then runs in a different order.

        Raises:
            ResourceError: If the kernel cannot be compiled, or fails.
        """
        kernels = {device: self._kernel(device) for device in dict.fromkeys(devices)}
        done = threading.Event()
        with ThreadPoolExecutor(len(kernels)) as pool:
            busy = [
                pool.submit(self._disturb, device, kernel, seed + n, done)
                for n, (device, kernel) in enumerate(kernels.items())
            ]
            try:
                yield
            finally:
                done.set()
        errors = [error for task in busy if (error := task.exception())]
        if errors:
            raise ResourceError(f"the devices could not be disturbed: {' '.join(str(errors[0]).split())}")

    def _kernel(self, device: int) -> Any:
        try:
            with self._cupy.cuda.Device(device):
                kernel = self._cupy.RawKernel(SLEEP, "minialex_sleep")
                kernel.compile()
                return kernel
        except Exception as error:  # NVRTC has exceptions of its own
            raise ResourceError(f"cuda:{device}: no kernel can be compiled: {' '.join(str(error).split())}") from None

    def _disturb(self, device: int, kernel: Any, seed: int, done: threading.Event) -> None:
        cupy = self._cupy
        random = np.random.default_rng(seed)
        with cupy.cuda.Device(device):
            blocks = 2 * int(cupy.cuda.runtime.getDeviceProperties(device)["multiProcessorCount"])
            stream = cupy.cuda.Stream(non_blocking=True)
            while not done.is_set():
                with stream:
                    kernel((blocks,), (1024,), (np.int64(random.integers(1_000, 400_000)),))
                stream.synchronize()
                time.sleep(float(random.uniform(0, 0.002)))
