"""What backends know about their own devices, and the devices' rates; needs only NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from minialex.backend import registry
from minialex.backend.findings import Copy, Device, Diagnosis, Measured
from minialex.errors import MinialexError, ResourceError
from minialex.speed.rates import Rates

Diagnose = Callable[[bool], Diagnosis]


def diagnoses() -> dict[str, Diagnose]:
    """The ``diagnose`` of every backend that has devices of its own, by the backend's name."""
    found = {}
    for name in registry.installed():
        with suppress(MinialexError):
            diagnose: Diagnose | None = getattr(registry.kind(name), "diagnose", None)
            if diagnose is not None:
                found[name] = diagnose
    return found


def rates_of(device: Device, measured: Measured) -> Rates:
    """A device's measurements, in the form that plans take."""
    return Rates(device.name, measured.matrix, measured.copy, None, device.memory, measured.source)


def with_link(
    rates: Mapping[str, Rates], backend: str, copies: Sequence[Copy]
) -> tuple[dict[str, Rates], float | None]:
    """Add the rate of the link between two devices, which is also returned.

    It is measured on the path that the backend's copies take; None if nothing arrives, or there are not two devices.
    """
    sound = [copy for copy in copies if copy.equal and copy.source != copy.target]
    ways = [copy for copy in sound if copy.direct] or sound
    link = min((copy.rate for copy in ways), default=None)
    ends = {f"{backend}:{index}" for copy in ways for index in (copy.source, copy.target)}
    return {name: replace(own, link=link) if name in ends else own for name, own in rates.items()}, link


def cards(diagnosing: Mapping[str, Diagnose] | None = None, only: str | None = None) -> dict[str, Rates]:
    """Measure the rates of backends' own devices, by name (``"cuda:0"``, …); takes some seconds.

    Args:
        diagnosing: as returned by `diagnoses`, which is called if this is None
        only: the only device to measure, without links to others; None for all

    Raises:
        ResourceError: If there are none, or one cannot be measured, with a remedy.
    """
    found: dict[str, Rates] = {}
    missing = f"there is no device {only}" if only else "no installed backend has devices of its own"
    for backend, diagnose in (diagnoses() if diagnosing is None else diagnosing).items():
        diagnosis = diagnose(True)
        if not diagnosis.measurable:
            first = next(check for check in diagnosis.checks if check.verdict == "problem")
            missing = f"{first.topic}: {first.found}; {first.mend}"
            continue
        for device in diagnosis.devices:
            label = f"{backend}:{device.index}"
            if only not in (None, label):
                continue
            try:
                found[label] = rates_of(device, diagnosis.measure(device.index))
            except ResourceError as error:
                raise ResourceError(f"{label} rates: could not be measured: {error}") from None
        if only is None and len(diagnosis.devices) > 1:
            found, _ = with_link(found, backend, diagnosis.copies(0, 1))
    if not found:
        raise ResourceError(missing)
    return found
