"""NVIDIA's driver, asked through its own C library: what CuPy and Numba load too, so its answer is the one that counts.

Nothing need be installed for this (no CuPy, no NVML bindings), no context is made on a device, and
``CUDA_VISIBLE_DEVICES`` holds, so that device 0 here is device 0 of the backend.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

LIBRARIES = {"win32": ("nvcuda.dll",)}
LINUX = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
KERNEL_MODULE = Path("/proc/driver/nvidia/version")

REASONS = {
    34: (
        "the library found is the toolkit's stub, not the driver's",
        "put the driver's libcuda.so.1 before the stub in LD_LIBRARY_PATH",
    ),
    100: (
        "the driver sees no device",
        "check that CUDA_VISIBLE_DEVICES is not empty and that `nvidia-smi` lists a card; in a container, start it with"
        " --gpus all",
    ),
    802: ("the driver is not ready", "start the fabric manager: sudo systemctl start nvidia-fabricmanager"),
    803: ("the driver's library and its kernel module are of different versions", "reboot the machine"),
    804: ("the driver is too old for this library", "update the NVIDIA driver, then reboot"),
}
"""What ``cuInit`` may answer, in words, and what mends it."""

MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76
"""Numbers of attributes of a device (``CUdevice_attribute``)."""


class DriverError(Exception):
    """No driver that works: what is wrong, and what to do."""

    def __init__(self, found: str, mend: str) -> None:
        super().__init__(found)
        self.found = found
        self.mend = mend


@dataclass(frozen=True)
class Device:
    """A GPU as the driver describes it."""

    index: int
    name: str
    memory: int
    capability: tuple[int, int]
    multiprocessors: int


class Driver(Protocol):
    """What is asked of the driver."""

    def cuda(self) -> tuple[int, int]:
        """The newest CUDA that it runs: (13, 0)."""
        ...

    def devices(self) -> list[Device]:
        """The GPUs that this process may use."""
        ...

    def reaches(self, device: int, peer: int) -> bool:
        """Whether a device can read a peer's memory directly."""
        ...


class LibCuda:
    """The driver's library.

    Args:
        library: the loaded library (``ctypes.CDLL``), or anything with its functions

    Raises:
        DriverError: If it cannot be initialised.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        code = int(library.cuInit(0))
        if code:
            found, mend = REASONS.get(code, (f"cuInit failed with error {code}", "see the output of `nvidia-smi`"))
            raise DriverError(found, mend)

    def _number(self, function: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        code = int(getattr(self._library, function)(ctypes.byref(value), *arguments))
        if code:
            raise DriverError(f"{function} failed with error {code}", "see the output of `nvidia-smi`")
        return value.value

    def cuda(self) -> tuple[int, int]:
        """The newest CUDA that it runs."""
        number = self._number("cuDriverGetVersion")
        return number // 1000, number % 1000 // 10

    def devices(self) -> list[Device]:
        """The GPUs that this process may use."""
        return [self._device(index) for index in range(self._number("cuDeviceGetCount"))]

    def _device(self, index: int) -> Device:
        handle = self._number("cuDeviceGet", index)
        name = ctypes.create_string_buffer(256)
        memory = ctypes.c_size_t()
        for function, target, rest in (
            ("cuDeviceGetName", name, (256, handle)),
            ("cuDeviceTotalMem_v2", ctypes.byref(memory), (handle,)),
        ):
            code = int(getattr(self._library, function)(target, *rest))
            if code:
                raise DriverError(f"{function} failed with error {code}", "see the output of `nvidia-smi`")
        major, minor, many = (
            self._number("cuDeviceGetAttribute", which, handle) for which in (MAJOR, MINOR, MULTIPROCESSORS)
        )
        return Device(index, name.value.decode(errors="replace"), memory.value, (major, minor), many)

    def reaches(self, device: int, peer: int) -> bool:
        """Whether a device can read a peer's memory directly."""
        return bool(
            self._number(
                "cuDeviceCanAccessPeer", self._number("cuDeviceGet", device), self._number("cuDeviceGet", peer)
            )
        )


def load(open_library: Callable[[str], Any] = ctypes.CDLL) -> LibCuda:
    """The driver of this machine.

    Raises:
        DriverError: If there is none, or none that works.
    """
    if sys.platform == "darwin":
        raise DriverError("there are no NVIDIA drivers for macOS", "use the numba backend: minialex train")
    names = LIBRARIES.get(sys.platform, LINUX)
    for name in names:
        try:
            library = open_library(name)
        except OSError:
            continue
        return LibCuda(library)
    raise DriverError(
        f"no NVIDIA driver ({names[0]} cannot be loaded)",
        "with an NVIDIA card: install its driver (Ubuntu: sudo ubuntu-drivers install; Debian: sudo apt install "
        "nvidia-driver; others: https://www.nvidia.com/drivers) and reboot; without one: use the numba backend",
    )


def release() -> str | None:
    """The driver's own version (``"580.95.05"``), where the kernel tells."""
    try:
        words = KERNEL_MODULE.read_text(encoding="utf-8", errors="replace").split()
        return next((word for word in words if word[:1].isdigit() and "." in word), None)
    except OSError:
        return None


def visible() -> str | None:
    """``CUDA_VISIBLE_DEVICES``, if it is set."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")
