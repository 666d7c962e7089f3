"""The energy of a training run: the manufacturers' watts times hours, and the machine's counters, if it has any.

The counters include everything that runs on whole processors and GPUs: Linux counts for processors (RAPL, in
``/sys/class/powercap``, which on many systems only root can read), a backend for its devices, if it can.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from minialex.speed.rates import KNOWN

POWERCAP = Path("/sys/class/powercap")
JOULES = 3600
"""Joules in a watt-hour."""
OFTEN = 30
"""Seconds between readings; a processor's counter wraps around after some minutes."""
DAY = 86_400
PAPER_DAYS = (5, 6)
"""Days that the paper's training took on two GTX 580 GPUs (section 5)."""


def kilowatt_hours(watts: float, seconds: float) -> float:
    """The energy of some watts for some seconds."""
    return watts * seconds / JOULES / 1000


def paper_kilowatt_hours() -> tuple[float, float]:
    """The energy of the paper's two GPUs for the five and for the six days that it names."""
    watts = 2 * (KNOWN["gtx580"].watts or 0)
    return kilowatt_hours(watts, PAPER_DAYS[0] * DAY), kilowatt_hours(watts, PAPER_DAYS[1] * DAY)


class Meter:
    """Watt-hours since the meter was created, by part of the machine; parts without counters are missing.

    A processor's counter wraps around to zero after some minutes at full power, so `tick` must be called more often.

    Args:
        backend: its method ``joules(device)``, if it has one, is called for each device
        devices: the devices used for training
        before: the energy of earlier parts of the same training run
        counters: folder of the processors' counters
    """

    def __init__(
        self, backend: Any, devices: Sequence[str], before: Mapping[str, float] | None = None, counters: Path = POWERCAP
    ) -> None:
        self._devices = {device: backend.joules for device in set(devices) if hasattr(backend, "joules")}
        self._packages = {path: _range(path) for path in sorted(counters.glob("*/energy_uj")) if _is_package(path)}
        self._last: dict[str, float] = {}
        self._joules = {part: JOULES * value for part, value in (before or {}).items()}
        self.read()

    def tick(self) -> None:
        """Read the counters if the last time was long ago; call it between steps."""
        if time.monotonic() - self._read > OFTEN:
            self.read()

    def read(self) -> dict[str, float]:
        """Watt-hours so far, by part: ``processor``, and devices by their names."""
        self._read = time.monotonic()
        for path, limit in self._packages.items():
            with suppress(OSError, ValueError):
                self._add(str(path), "processor", int(path.read_text(encoding="ascii")) / 1e6, limit)
        for device, joules in self._devices.items():
            if (now := joules(device)) is not None:
                self._add(device, device, now, None)
        return {part: value / JOULES for part, value in self._joules.items()}

    def _add(self, counter: str, part: str, now: float, limit: float | None) -> None:
        more = now - self._last.get(counter, now)
        if more < 0:  # it restarted; a GPU's does when its driver is reloaded
            more = more + limit if limit else now
        self._last[counter] = now
        self._joules[part] = self._joules.get(part, 0.0) + more


def _is_package(energy: Path) -> bool:
    """Whether a counter is a whole processor's: its parts (cores, memory) have counters of their own."""
    try:
        return (energy.parent / "name").read_text(encoding="ascii").startswith("package")
    except (OSError, ValueError):
        return False


def _range(energy: Path) -> float | None:
    try:
        return int((energy.parent / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None
