"""Whether this machine can run the backend, and if not, the one line that says why and what to do."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from minialex.errors import BackendUnavailable
from minialex_cuda.runtime.protocol import Runtime

INSTALL = "pip install 'minialex[cuda]'"
"""What brings everything that a GPU needs but its driver."""

OLDEST_DRIVER = 13000
"""The CUDA version, as drivers report it, that the extra's wheels need at least: 13.0, which is driver 580."""


def open_device() -> Runtime:
    """The runtime of this machine's GPUs.

    Raises
    ------
    BackendUnavailable
        See `reason`.
    """
    found = reason()
    if found:
        raise BackendUnavailable(f"backend 'cuda' cannot be used: {found}")
    from minialex_cuda.runtime.device import DeviceRuntime

    return DeviceRuntime()


def reason() -> str | None:
    """Why the backend cannot run here, or None if it can."""
    missing = [name for name, module in (("CuPy", "cupy"), ("numba-cuda", "numba_cuda")) if find_spec(module) is None]
    if missing:
        return f"{' and '.join(missing)} not installed; install with: {INSTALL}"
    if _version("numpy") >= (2, 5):
        return f"numba-cuda does not work with NumPy {version('numpy')}; install with: {INSTALL} 'numpy<2.5'"
    try:
        import cupy
    except ImportError as error:
        return f"CuPy does not load ({error}); install with: {INSTALL}"
    driver = driver_version()
    if driver is None:
        return "no NVIDIA driver found (libcuda.so.1); install the driver of your GPU from nvidia.com/drivers"
    if driver < OLDEST_DRIVER:
        return (
            f"the NVIDIA driver is too old: it knows CUDA {_dotted(driver)}, CUDA {_dotted(OLDEST_DRIVER)} is needed; "
            "install driver 580 or newer from nvidia.com/drivers"
        )
    if not cupy.cuda.is_available():
        return (
            "the NVIDIA driver shows no device; `nvidia-smi` should list one (is CUDA_VISIBLE_DEVICES set to nothing?)"
        )
    fault = cublas_fault()
    return fault and f"cuBLAS does not load ({fault}); install with: {INSTALL}"


def cublas_fault() -> str | None:
    """Why cuBLAS cannot be loaded, or None: CuPy's wheel comes without it."""
    from minialex_cuda.runtime.cublas import library

    try:
        library()
    except (ImportError, OSError, RuntimeError) as error:
        return " ".join(str(error).split())[:200]
    return None


def driver_version() -> int | None:
    """The CUDA version that the driver knows (13000 is 13.0), or None where there is no driver."""
    import ctypes

    try:
        library: Any = ctypes.CDLL("nvcuda.dll" if _windows() else "libcuda.so.1")
        found = ctypes.c_int(0)
        return None if library.cuDriverGetVersion(ctypes.byref(found)) else found.value
    except (OSError, AttributeError):
        return None


def _windows() -> bool:
    import sys

    return sys.platform == "win32"


def _dotted(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def _version(package: str) -> tuple[int, int]:
    try:
        major, minor = version(package).split(".")[:2]
        return int(major), int(minor)
    except (PackageNotFoundError, ValueError):
        return (0, 0)
