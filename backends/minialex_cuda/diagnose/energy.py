"""The energy that a GPU has used, from NVIDIA's management library, which comes with the driver."""

from __future__ import annotations

import ctypes
from typing import Any


def joules(device: int, nvml: Any = None, driver: Any = None) -> float | None:
    """Joules that a GPU, by its CUDA number, has used since its driver was loaded.

    None if the libraries are missing or the GPU does not count them (those before Volta).
    """
    handle, number, counted = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_ulonglong()
    place = ctypes.create_string_buffer(32)  # CUDA and the management library number GPUs differently
    try:
        nvml = nvml or ctypes.CDLL("libnvidia-ml.so.1")
        driver = driver or ctypes.CDLL("libcuda.so.1")
        failed = (
            driver.cuDeviceGet(ctypes.byref(number), device)
            or driver.cuDeviceGetPCIBusId(place, len(place), number)
            or nvml.nvmlInit_v2()
            or nvml.nvmlDeviceGetHandleByPciBusId_v2(place, ctypes.byref(handle))
            or nvml.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(counted))
        )
    except (OSError, AttributeError):
        return None
    return None if failed else counted.value / 1000
