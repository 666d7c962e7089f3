"""NVIDIA's driver, queried through its own C library, which CuPy and Numba load too: its answers are authoritative.

This needs nothing installed (neither CuPy nor bindings), creates no context on a device, and respects
``CUDA_VISIBLE_DEVICES``, so device 0 here is device 0 of the backend.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minialex.backend.findings import Device

LINUX = ("libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1")
WINDOWS = ("nvcuda.dll",)
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
    803: ("the driver's library and its kernel module have different versions", "reboot the machine"),
    804: ("the driver is too old for this library", "update the NVIDIA driver, then reboot"),
}
"""The errors that ``cuInit`` may return, in words, and their remedies."""

MULTIPROCESSORS, MAJOR, MINOR = 16, 75, 76
"""Attribute numbers (``CUdevice_attribute``)."""


class DriverError(Exception):
    """No working driver: what is wrong, and what to do."""

    def __init__(self, found: str, mend: str = "see the output of `nvidia-smi`") -> None:
        super().__init__(found)
        self.found = found
        self.mend = mend


class Driver:
    """The driver's library.

    Args:
        library: the loaded library (``ctypes.CDLL``), or anything with its functions

    Raises:
        DriverError: If it cannot be initialised; from the methods, if a call fails.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        code = int(library.cuInit(0))
        if code:
            raise DriverError(*REASONS.get(code, (f"cuInit failed with error {code}",)))

    def _call(self, function: str, *arguments: Any) -> None:
        code = int(getattr(self._library, function)(*arguments))
        if code:
            raise DriverError(f"{function} failed with error {code}")

    def _number(self, function: str, *arguments: Any) -> int:
        value = ctypes.c_int()
        self._call(function, ctypes.byref(value), *arguments)
        return value.value

    def cuda(self) -> tuple[int, int]:
        """The newest CUDA version that it supports: (13, 0)."""
        number = self._number("cuDriverGetVersion")
        return number // 1000, number % 1000 // 10

    def devices(self) -> list[Device]:
        """The GPUs that this process may use; `Device.capability` is the compute capability."""
        return [self._device(index) for index in range(self._number("cuDeviceGetCount"))]

    def _device(self, index: int) -> Device:
        handle = self._number("cuDeviceGet", index)
        name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
        self._call("cuDeviceGetName", name, 256, handle)
        self._call("cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
        major, minor, count = (
            self._number("cuDeviceGetAttribute", which, handle) for which in (MAJOR, MINOR, MULTIPROCESSORS)
        )
        return Device(index, name.value.decode(errors="replace"), memory.value, (major, minor), count)

    def reaches(self, device: int, peer: int) -> bool:
        """Whether a device can read a peer's memory directly."""
        handles = (self._number("cuDeviceGet", index) for index in (device, peer))
        return bool(self._number("cuDeviceCanAccessPeer", *handles))


def load(open_library: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """Load this machine's driver.

    Raises:
        DriverError: If there is none, or it does not work.
    """
    if sys.platform == "darwin":
        raise DriverError("there are no NVIDIA drivers for macOS", "use the numba backend: minialex train")
    names = WINDOWS if sys.platform == "win32" else LINUX
    for name in names:
        try:
            library = open_library(name)
        except OSError:
            continue
        return Driver(library)
    raise DriverError(
        f"no NVIDIA driver ({names[0]} cannot be loaded)",
        "with an NVIDIA card: install its driver (Ubuntu: sudo ubuntu-drivers install; Debian: sudo apt install "
        "nvidia-driver; others: https://www.nvidia.com/drivers) and reboot; without one: use the numba backend",
    )


def release() -> str | None:
    """The driver's own version (``"580.95.05"``), if the kernel reports it."""
    try:
        words = KERNEL_MODULE.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    return next((word for word in words if word[:1].isdigit() and "." in word), None)
