"""The energy of a training: the makers' watts times hours, and what the machine counts, if it does.

Counted is what whole processors and cards take, whatever else runs on them: by Linux for processors (RAPL, in
``/sys/class/powercap``, which many systems let only root read), by a backend for its devices, if it can.
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
"""Of a watt-hour."""
OFTEN = 30
"""Seconds between readings; a processor's counter wraps after some minutes."""
DAY = 86_400
PAPER_DAYS = (5, 6)
"""What the paper's training took on two GTX 580 (section 5)."""


def kilowatt_hours(watts: float, seconds: float) -> float:
    """The energy of so many watts for so long."""
    return watts * seconds / JOULES / 1000


def paper_kilowatt_hours() -> tuple[float, float]:
    """The energy of the paper's two cards for the five and for the six days that it names."""
    watts = 2 * (KNOWN["gtx580"].watts or 0)
    return kilowatt_hours(watts, PAPER_DAYS[0] * DAY), kilowatt_hours(watts, PAPER_DAYS[1] * DAY)


class Meter:
    """Watt-hours since the meter was made, by part of the machine; nothing where nothing is counted.

    A processor's counter begins again at zero after some minutes of full power, so `tick` must be called more often.

    Args:
        backend: asked for ``joules(device)`` of each device, if it has such a method
        devices: those of the training
        before: what earlier parts of the same training took
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
        """Read, if that was long ago: to be called between steps."""
        if time.monotonic() - self._read > OFTEN:
            self.read()

    def read(self) -> dict[str, float]:
        """Watt-hours until now, by part: ``processor``, and devices by their names."""
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
        if more < 0:  # it began again; of a card, since its driver was loaded anew
            more = more + limit if limit else now
        self._last[counter] = now
        self._joules[part] = self._joules.get(part, 0.0) + more


def _is_package(energy: Path) -> bool:
    """Whether a counter is that of a whole processor: its parts (cores, memory) have counters of their own."""
    try:
        return (energy.parent / "name").read_text(encoding="ascii").startswith("package")
    except (OSError, ValueError):
        return False


def _range(energy: Path) -> float | None:
    try:
        return int((energy.parent / "max_energy_range_uj").read_text(encoding="ascii")) / 1e6
    except (OSError, ValueError):
        return None
