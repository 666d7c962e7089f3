"""Which machine and which versions figures were recorded with."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "numpy", "numba", "torch", "numba-cuda", "cupy-cuda13x", "nvidia-cublas", "nvidia-cudnn-cu13",
    "nvidia-cudnn-frontend",
)  # fmt: skip


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that compute, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in ("minialex", *PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe() -> dict[str, object]:
    """Processor, cores, memory, system, versions and date, as JSON has them."""
    found: dict[str, object] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return {"machine": found, "versions": versions(), "date": datetime.date.today().isoformat()}
