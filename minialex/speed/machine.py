"""Describes the machine and the versions with which figures were recorded."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import shlex
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath

PACKAGES = (
    "numpy", "numba", "torch", "numba-cuda", "cupy-cuda13x", "nvidia-cublas", "nvidia-cudnn-cu13",
    "nvidia-cudnn-frontend",
)  # fmt: skip


def processor() -> str:
    """The processor's name, if the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def cards(told: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Names of NVIDIA GPUs, if the driver on Linux reports them: a folder for each, with a file ``information``."""
    found = []
    for path in sorted(told.glob("*/information")):
        with contextlib.suppress(OSError):
            lines = path.read_text(encoding="utf-8").splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    return found


def versions() -> dict[str, str]:
    """Versions of Python and of the installed numerical libraries."""
    installed = {"python": platform.python_version()}
    for name in ("minialex", *PACKAGES):
        with contextlib.suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed


def describe() -> dict[str, object]:
    """Processor, cores, memory, system, GPUs if any, versions and date, as JSON values."""
    about: dict[str, object] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        about["memory_gib"] = round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    if present := cards():
        about["cards"] = present
    return {"machine": about, "versions": versions(), "date": datetime.date.today().isoformat()}


def anywhere(command: str) -> str:
    """A recorded command in a form that works on another machine.

    Absolute paths are shortened to the file's name, and the place of the results (``--out``) is left out. Programs,
    options and relative paths stay.
    """
    words, shown = shlex.split(command), []
    while words:
        word = words.pop(0)
        if word == "--out":
            words = words[1:]
        elif not word.startswith("--out="):
            head, mark, path = word.rpartition("=") if word.startswith("--") else word.rpartition(":")
            shown.append(f"{head}{mark}{PurePosixPath(path).name}" if path.startswith(("/", "~")) else word)
    return shlex.join(shown)
