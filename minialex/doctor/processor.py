"""The processor's side: Python, NumPy and its BLAS, backends, threads, memory, disk, and measured rates."""

from __future__ import annotations

import logging
import math
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from minialex.backend import registry
from minialex.backend.findings import Check
from minialex.errors import MinialexError
from minialex.speed import machine, peaks
from minialex.speed.rates import Rates

NEEDED = 2 * 2**30
"""Bytes of memory for the full network's weights, momentum and gradients, and a small batch."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")
MEMORY = Path("/proc/meminfo")


def checks(asked: str) -> list[Check]:
    """All checks of the processor except its rates; `asked` is the backend that must work."""
    return [
        Check(
            "cpu", "machine", "ok", f"{machine.processor()}, {platform.system()}, Python {platform.python_version()}"
        ),
        Check("cpu", "minialex", "ok", machine.versions().get("minialex", "from a source tree, not installed")),
        _blas(),
        _cores(),
        *_backends(asked),
        *_memory(),
        *_disk(Path.cwd()),
    ]


def _blas() -> Check:
    found = f"NumPy {np.__version__}"
    config: Any = np.show_config(mode="dicts")
    blas = config.get("Build Dependencies", {}).get("blas", {}) if isinstance(config, dict) else {}
    name = str(blas.get("name", "")).strip()
    if not name or name == "none":
        return Check(
            "cpu", "matrix products", "note", f"{found} without a BLAS library: matrix products are slow",
            "pip install --force-reinstall numpy",
        )  # fmt: skip
    threads = [f"{v}={os.environ[v]}" for v in peaks.BLAS_THREADS if v in os.environ]
    limits = f"; limited by {', '.join(threads)}" if threads else ""
    return Check("cpu", "matrix products", "ok", f"{found} with {name} {blas.get('version', '')}{limits}".rstrip())


def _cores() -> Check:
    cores = peaks.cores()
    quota = _quota()
    if quota is not None and quota < cores:
        return Check(
            "cpu", "cores", "note", f"{cores} cores are visible, but this container may use only {quota:g} of them",
            f"minialex train --threads {max(1, math.floor(quota))}",
        )  # fmt: skip
    return Check("cpu", "cores", "ok", f"{cores}: the default number of threads (--threads sets fewer)")


def _quota() -> float | None:
    """Cores that a container may use, if it is limited."""
    try:
        most, period = QUOTA.read_text(encoding="ascii").split()
        return None if most == "max" else int(most) / int(period)
    except (OSError, ValueError):
        return None


class _Notices(logging.Handler):
    """Collects a backend's notices while it is loaded (for example, that its cache folder is not writable)."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def _backends(asked: str) -> list[Check]:
    """Load every backend for the processor; `minialex.doctor.examine` has those that diagnose their own devices."""
    found = []
    chosen = registry.default_name()
    logger = logging.getLogger("minialex")
    for name in registry.installed():
        topic, notices = f"backend {name}", _Notices()
        logger.addHandler(notices)
        try:
            if hasattr(registry.kind(name), "diagnose"):
                continue
            backend = registry.load(name)
            default = ", the default" if name == chosen else ""
            text = f"{_package(name)}works on {', '.join(backend.devices)}{default}"
            found.append(Check("cpu", topic, "ok", text))
            found += [Check("cpu", topic, "note", text) for text in dict.fromkeys(notices.texts)]
            if getattr(backend, "keeps_kernels", False) and not notices.texts:
                found.append(Check("cpu", "kernel cache", "ok", "compiled kernels are kept on disk for the next run"))
        except MinialexError as error:
            mend = f'pip install --upgrade "{name}" "numpy"' if _package(name) and name != "numpy" else ""
            found.append(Check("cpu", topic, "problem" if name == asked else "note", str(error), mend))
        finally:
            logger.removeHandler(notices)
    return found


def _package(name: str) -> str:
    """``"numba 0.61 "`` for a backend named after the package that it is built on."""
    known = machine.versions()
    return f"{name} {known[name]} " if name in known else ""


def _memory() -> list[Check]:
    try:
        lines = dict(line.split(":", 1) for line in MEMORY.read_text(encoding="ascii").splitlines())
        total, free = (int(lines[key].split()[0]) * 1024 for key in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError):
        return []
    text = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < NEEDED:
        return [
            Check(
                "cpu", "memory", "note",
                f"{text}: the small networks fit; the full one needs {NEEDED / 2**30:.0f} GiB and more",
                "close other programs, or train a small network: minialex train --recipe shapes",
            )
        ]  # fmt: skip
    return [Check("cpu", "memory", "ok", text)]


def _disk(folder: Path) -> list[Check]:
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return []
    text = f"{free / 2**30:.1f} GiB free in {folder}"
    if free < NEEDED:
        return [
            Check(
                "cpu", "disk", "note", f"{text}: a checkpoint of the full network takes half a GiB, several are kept",
                "minialex train --out FOLDER-ON-A-LARGER-DISK",
            )
        ]  # fmt: skip
    return [Check("cpu", "disk", "ok", text)]


def measure() -> Rates:
    """Measure the processor's rates, for some seconds: NumPy's matrix product, and copies by one thread per core."""
    cores = peaks.cores()
    found = peaks.of_host(cores, "float32")
    return Rates(
        machine.processor(),
        {"float32": 2 * found.multiply_adds},
        found.bytes,
        None,
        None,
        f"measured on this machine with NumPy's BLAS, {cores} thread{'s' if cores > 1 else ''}",
    )
