"""Finds the driver, GPUs and packages, for ``minialex doctor`` and for the backend itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from itertools import combinations

from minialex.backend.findings import Check, Copy, Device, Measured, works
from minialex.errors import BackendUnavailable
from minialex_cuda.diagnose import driver as drivers
from minialex_cuda.diagnose import wheels
from minialex_cuda.diagnose.driver import Driver, DriverError
from minialex_cuda.diagnose.meter import CupyMeter
from minialex_cuda.diagnose.wheels import finding
from minialex_cuda.runtime import choices
from minialex_cuda.runtime.protocol import Runtime

OLDEST_CAPABILITY = (7, 5)
"""Compute capability below which CUDA 13 has no compiler: cards before Turing (2018)."""

ROOM = 3 * 2**30
"""Bytes that the full network needs on a device with a small batch, with a margin."""


def open_device() -> Runtime:
    """The runtime of this machine's GPUs.

    Raises:
        BackendUnavailable: See `reason`.
    """
    why = reason()
    if why:
        raise BackendUnavailable(f"backend 'cuda' cannot be used: {why}")
    from minialex_cuda.runtime.device import DeviceRuntime

    return DeviceRuntime()


def reason() -> str | None:
    """Why the backend cannot run here and what to do, in one line; None if it can."""
    driver, _, checks = look(drivers.load)
    packages = wheels.installed()
    needed = wheels.checks(packages, driver.cuda() if driver else None) + checks + wheels.libraries(packages)
    return next((f"{c.topic}: {c.found}; {c.mend}" for c in needed if c.verdict == "problem"), None)


def look(load: Callable[[], Driver]) -> tuple[Driver | None, list[Device], list[Check]]:
    """The driver, if a working one exists, its devices, and checks of both."""
    try:
        driver = load()
        cuda = driver.cuda()
        devices = driver.devices()
    except DriverError as error:
        return None, [], [finding("driver", "problem", error.found, error.mend)]
    release = drivers.release()
    text = f"{f'NVIDIA {release}, ' if release else ''}CUDA {cuda[0]}.{cuda[1]}"
    if cuda < wheels.OLDEST_CUDA:
        needed = f"{wheels.OLDEST_CUDA[0]}.{wheels.OLDEST_CUDA[1]}"
        checks = [finding("driver", "problem", f"{text} is too old: {needed} is needed", wheels.NEWER_DRIVER)]
    else:
        checks = [finding("driver", "ok", text)]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        checks.append(finding("devices", "note", f"CUDA_VISIBLE_DEVICES={visible} selects and numbers the cards"))
    if os.environ.get("NVIDIA_TF32_OVERRIDE", "0") != "0":
        text = "NVIDIA_TF32_OVERRIDE is set: NVIDIA's libraries round float32 products to tf32, whatever the precision"
        checks.append(finding("float32", "note", text, "unset NVIDIA_TF32_OVERRIDE"))
    if not devices:
        mend = "check that `nvidia-smi` lists a card and that CUDA_VISIBLE_DEVICES does not hide it"
        checks.append(finding("devices", "problem", "the driver shows no device", mend))
    return driver, devices, checks


class Diagnosis:
    """See `minialex.backend.findings.Diagnosis`; the arguments after the first are the sources of findings.

    Args:
        asked: whether the user asked for the backend
        load_driver: returns the driver, or raises `DriverError`
        packages: returns versions by name
        libraries: loads the CUDA libraries
        load_meter: returns the meter for GPUs; called only if the driver shows a device and CuPy works
    """

    def __init__(
        self,
        asked: bool,
        *,
        load_driver: Callable[[], Driver] | None = None,
        packages: Callable[[], Mapping[str, str]] = wheels.installed,
        libraries: Callable[[Mapping[str, str]], list[Check]] = wheels.libraries,
        load_meter: Callable[[], CupyMeter] = lambda: CupyMeter(import_module("cupy")),
    ) -> None:
        self._driver, self.devices, self.checks = look(load_driver or drivers.load)
        self._meter: CupyMeter | None = None
        self.checks += [_device(device) for device in self.devices]
        found = packages()
        if self._driver is not None or asked or any(name in found for name in wheels.CUPY):
            self.checks += wheels.checks(found, self._driver.cuda() if self._driver else None) + libraries(found)
        if self._driver is None or not self.devices:
            return
        self.checks += [_peers(self._driver, *pair) for pair in combinations(self.devices, 2)]
        if works((check for check in self.checks if check.topic in ("driver", "CuPy", "cuBLAS", "NVRTC")), ("cuda",)):
            self._meter = load_meter()
            self.checks += [_memory(device, self._meter) for device in self.devices]
            if any(check.topic == "cuDNN" and check.verdict == "ok" for check in self.checks):
                self.checks.append(finding("cuDNN's plans", "ok", choices.finding()))

    @property
    def measurable(self) -> bool:
        """Whether there are devices that CuPy can use."""
        return self._meter is not None

    @property
    def _measuring(self) -> CupyMeter:
        assert self._meter is not None
        return self._meter

    def measure(self, device: int) -> Measured:
        """Measure matrix products in every precision of the device, and copies within its memory and from the host."""
        return self._measuring.measure(self.devices[device])

    def copies(self, first: int, second: int) -> list[Copy]:
        """Copy both ways, through the host and, if the driver allows it, directly."""
        assert self._driver is not None
        if first == second:
            return [self._measuring.copy(first, first, False)]
        ways = (False, True) if _reach(self._driver, first, second) else (False,)
        pairs = (first, second), (second, first)
        return [self._measuring.copy(*pair, direct) for direct in ways for pair in pairs]

    def disturbed(self, devices: Sequence[int], seed: int) -> AbstractContextManager[None]:
        """Keep devices busy at random moments, for random times."""
        return self._measuring.disturbed(devices, seed)


def _device(device: Device) -> Check:
    major, minor = device.capability
    topic = f"cuda:{device.index}"
    text = (
        f"{device.name}, {device.memory / 2**30:.1f} GiB, compute capability {major}.{minor}, "
        f"{device.multiprocessors} multiprocessors"
    )
    if device.capability < OLDEST_CAPABILITY:
        mend = "train on the processor: minialex train --backend numba"
        return finding(topic, "problem", f"{text}: CUDA 13 needs 7.5 (Turing, 2018) or newer", mend)
    return finding(topic, "ok", text if device.capability >= (8, 0) else f"{text}; float32 only: no tf32, no bfloat16")


def _reach(driver: Driver, first: int, second: int) -> bool:
    return driver.reaches(first, second) and driver.reaches(second, first)


def _peers(driver: Driver, first: Device, second: Device) -> Check:
    topic = f"cuda:{first.index}, cuda:{second.index}"
    if _reach(driver, first.index, second.index):
        return finding(topic, "ok", "peer access: copies go directly")
    return finding(topic, "note", "no peer access: copies go through the host, which is slower")


def _memory(device: Device, meter: CupyMeter) -> Check:
    topic = f"cuda:{device.index} memory"
    try:
        free = meter.free(device.index)
    except (MemoryError, RuntimeError) as error:
        text = f"could not be measured: {' '.join(str(error).split())}"
        return finding(topic, "problem", text, "see the output of `nvidia-smi`")
    text = f"{free / 2**30:.1f} of {device.memory / 2**30:.1f} GiB free"
    if free < ROOM:
        mend = "stop the programs that use the card (`nvidia-smi` lists them), or set a smaller --batch-size"
        return finding(topic, "note", text, mend)
    return finding(topic, "ok", text)
