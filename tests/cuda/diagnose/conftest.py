"""GPUs that are not there: a driver's library and a CuPy of a few functions, both over the host's memory.

The fake CuPy keeps a clock on every stream, which copies and products move on at rates that the test knows: so what
`CupyMeter` measures must come out as exactly those. Every address belongs to a device, and work that touches another
device's memory, or a stream that is not the current one's, is an error, as it is (at best) on real cards.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minialex.doctor.pair import small_recipe
from minialex.recipe.fields import Recipe

PRODUCTS = {"float32": 50e12, "tf32": 400e12, "bfloat16": 800e12}
MEMORY, HOST, DIRECT, THROUGH_HOST = 4e12, 50e9, 400e9, 20e9
MODES = {68: "float32", 77: "tf32"}


@dataclass
class FakeLibrary:
    """``libcuda``: as many cards as there are names."""

    names: list[str] = field(default_factory=lambda: ["Fake 1", "Fake 2"])
    cuda: int = 13000
    init: int = 0
    capability: tuple[int, int] = (9, 0)
    memory: int = 80 << 30
    peers: bool = True
    fail: str = ""

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.init

    def _set(self, target: Any, value: int, name: str) -> int:
        if name == self.fail:
            return 999
        target._obj.value = value
        return 0

    def cuDriverGetVersion(self, target: Any) -> int:  # noqa: N802
        return self._set(target, self.cuda, "cuDriverGetVersion")

    def cuDeviceGetCount(self, target: Any) -> int:  # noqa: N802
        return self._set(target, len(self.names), "cuDeviceGetCount")

    def cuDeviceGet(self, target: Any, index: int) -> int:  # noqa: N802
        return self._set(target, index, "cuDeviceGet") if index < len(self.names) else 101

    def cuDeviceGetName(self, target: Any, size: int, handle: int) -> int:  # noqa: N802
        target.value = self.names[handle].encode()[: size - 1]
        return 999 if self.fail == "cuDeviceGetName" else 0

    def cuDeviceTotalMem_v2(self, target: Any, handle: int) -> int:  # noqa: N802
        return self._set(target, self.memory, "cuDeviceTotalMem_v2")

    def cuDeviceGetAttribute(self, target: Any, which: int, handle: int) -> int:  # noqa: N802
        return self._set(target, {75: self.capability[0], 76: self.capability[1], 16: 132}[which], "attribute")

    def cuDeviceCanAccessPeer(self, target: Any, device: int, peer: int) -> int:  # noqa: N802
        assert device != peer
        return self._set(target, int(self.peers), "cuDeviceCanAccessPeer")


class FakeArray:
    """Bytes on a device."""

    def __init__(self, fake: FakeCupy, array: np.ndarray[Any, Any], device: int) -> None:
        self.array = array
        self.device = device
        self.data = SimpleNamespace(ptr=array.ctypes.data)
        fake.arrays.append(self)


class FakeEvent:
    """A moment of a stream's clock."""

    def __init__(self) -> None:
        self.at = -1.0

    def record(self, stream: FakeStream) -> None:
        self.at = stream.clock

    def synchronize(self) -> None:
        assert self.at >= 0


class FakeStream:
    """A queue with a clock; its work is done at once."""

    def __init__(self, fake: FakeCupy) -> None:
        self.device = fake.current
        self.clock = 0.0
        self.ptr = 1000 + len(fake.streams)
        fake.streams[self.ptr] = self

    def __enter__(self) -> None:
        pass

    def __exit__(self, *rest: object) -> None:
        pass

    def synchronize(self) -> None:
        pass


class FakeKernel:
    """A kernel that notes its launches."""

    def __init__(self, fake: FakeCupy) -> None:
        self.fake = fake
        self.device = fake.current

    def compile(self) -> None:
        if self.fake.compiler:
            raise self.fake.compiler

    def __call__(self, grid: Any, block: Any, arguments: Any) -> None:
        assert self.device == self.fake.current
        if self.fake.launcher:
            raise self.fake.launcher
        self.fake.launched.append((self.device, int(arguments[0])))


class FakeCupy:
    """The module ``cupy``.

    Parameters
    ----------
    devices : how many
    broken : (source, target) whose direct copies lose a byte
    refused : whether switching peer access on is refused
    free : bytes of free memory
    full : whether no memory can be had
    compiler, launcher : what compiling or launching a kernel raises
    """

    def __init__(
        self, devices: int = 2, broken: tuple[int, int] | None = None, refused: bool = False, free: int = 70 << 30,
        full: bool = False, compiler: Exception | None = None, launcher: Exception | None = None,
    ) -> None:  # fmt: skip
        self.compiler, self.launcher = compiler, launcher
        self.devices, self.broken, self.refused, self.full = devices, broken, refused, full
        self.here = threading.local()
        self.streams: dict[int, FakeStream] = {}
        self.arrays: list[FakeArray] = []
        self.access: set[tuple[int, int]] = set()
        self.launched: list[tuple[int, int]] = []
        self.handle_stream = 0
        self.handles = 0
        runtime = SimpleNamespace(
            memGetInfo=lambda: (free, 80 << 30), memcpyAsync=self._copy, memcpyDeviceToDevice=3,
            memcpyHostToDevice=1, memcpyPeerAsync=self._peer, deviceEnablePeerAccess=self._enable,
            deviceDisablePeerAccess=self._disable, deviceSynchronize=lambda: None,
            getDeviceProperties=lambda device: {"multiProcessorCount": 132},
        )  # fmt: skip
        cublas = SimpleNamespace(
            CUBLAS_COMPUTE_32F=68, CUBLAS_COMPUTE_32F_FAST_TF32=77, create=self._create, destroy=self._destroy,
            setStream=self._set_stream, gemmEx=self._product,
        )  # fmt: skip
        self.cuda = SimpleNamespace(
            Device=self._device, Stream=lambda non_blocking: FakeStream(self), Event=FakeEvent, runtime=runtime,
            cublas=cublas, get_elapsed_time=lambda begin, end: 1e3 * (end.at - begin.at),
            alloc_pinned_memory=self._pinned,
        )  # fmt: skip

    @property
    def current(self) -> int:
        return getattr(self.here, "device", 0)

    @contextmanager
    def _device(self, index: int) -> Iterator[None]:
        if index >= self.devices:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        before, self.here.device = self.current, index
        try:
            yield
        finally:
            self.here.device = before

    def zeros(self, shape: Any, dtype: Any) -> FakeArray:
        if self.full:
            raise MemoryError("Out of memory allocating 268,435,456 bytes")
        return FakeArray(self, np.zeros(shape, dtype), self.current)

    def asarray(self, array: Any) -> FakeArray:
        return FakeArray(self, np.array(array), self.current)

    def asnumpy(self, array: FakeArray) -> Any:
        assert array.device == self.current
        return array.array

    def get_default_memory_pool(self) -> Any:
        return SimpleNamespace(free_all_blocks=lambda: None)

    def RawKernel(self, source: str, name: str) -> Any:  # noqa: N802
        assert f"void {name}(" in source
        return FakeKernel(self)

    def _pinned(self, size: int) -> Any:
        block = np.zeros(size, np.uint8)
        return SimpleNamespace(ptr=block.ctypes.data, block=block)

    def _at(self, address: int, size: int) -> FakeArray:
        for array in reversed(self.arrays):
            if array.data.ptr <= address and address + size <= array.data.ptr + array.array.nbytes:
                return array
        raise AssertionError("no memory of a device")

    def _copy(self, target: int, source: int, size: int, kind: int, stream: int) -> None:
        assert self._at(target, size).device == self.streams[stream].device == self.current
        if kind == 3:
            assert self._at(source, size).device == self.current
        ctypes.memmove(target, source, size)
        self.streams[stream].clock += 2 * size / MEMORY if kind == 3 else size / HOST

    def _peer(self, target: int, there: int, source: int, here: int, size: int, stream: int) -> None:
        assert self._at(target, size).device == there
        assert self._at(source, size).device == here == self.streams[stream].device
        ctypes.memmove(target, source, size)
        direct = (here, there) in self.access
        if direct and self.broken == (here, there):
            self._at(target, size).array[size // 2] ^= 1
        self.streams[stream].clock += size / (DIRECT if direct or here == there else THROUGH_HOST)

    def _enable(self, peer: int) -> None:
        if self.refused:
            raise RuntimeError("cudaErrorUnknown: unknown error")
        if (self.current, peer) in self.access:
            raise RuntimeError("cudaErrorPeerAccessAlreadyEnabled: peer access is already enabled")
        self.access.add((self.current, peer))

    def _disable(self, peer: int) -> None:
        if (self.current, peer) not in self.access:
            raise RuntimeError("cudaErrorPeerAccessNotEnabled: peer access has not been enabled")
        self.access.remove((self.current, peer))

    def _create(self) -> int:
        self.handles += 1
        return 7

    def _destroy(self, handle: int) -> None:
        self.handles -= 1

    def _set_stream(self, handle: int, stream: int) -> None:
        self.handle_stream = stream

    def _product(
        self, handle: int, ta: int, tb: int, m: int, n: int, k: int, alpha: int, a: int, a_type: int, lda: int, b: int,
        b_type: int, ldb: int, beta: int, c: int, c_type: int, ldc: int, mode: int, algorithm: int,
    ) -> None:  # fmt: skip
        size = 2 if a_type == 14 else 4
        assert a_type == b_type == c_type
        assert lda == m
        assert ldb == k
        assert ldc == m
        for address in (a, b, c):
            assert self._at(address, size * n * n).device == self.current
        assert ctypes.c_float.from_address(alpha).value == 1.0
        rate = PRODUCTS["bfloat16" if a_type == 14 else MODES[mode]]
        self.streams[self.handle_stream].clock += 2 * m * n * k / rate


@pytest.fixture
def tiny() -> Callable[[str], Recipe]:
    """What two devices train in tests: the small network, smaller."""

    def recipe(precision: str) -> Recipe:
        return small_recipe(precision).replace(
            kernels=(4, 8, 8, 8, 8), features=(16, 16), batch_size=4, classes=5, crop=20, image_size=24
        )

    return recipe


@pytest.fixture
def fakes() -> Any:
    """The fakes and their rates, by name."""
    return SimpleNamespace(
        Library=FakeLibrary, Cupy=FakeCupy, products=PRODUCTS, memory=MEMORY, host=HOST, direct=DIRECT,
        through_host=THROUGH_HOST,
    )  # fmt: skip
