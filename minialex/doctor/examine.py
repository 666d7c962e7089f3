"""All findings of ``minialex doctor``, on the screen and as one JSON report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.doctor import driver as drivers
from minialex.doctor import pair as pairs
from minialex.doctor import processor, wheels
from minialex.doctor.checks import Area, Check, works
from minialex.doctor.driver import Device, Driver, DriverError
from minialex.doctor.meter import Copy, CupyMeter, Meter
from minialex.doctor.pair import Outcome, Progress
from minialex.engine.session import placement_of
from minialex.errors import BackendUnavailable, ConfigurationError, MinialexError, ResourceError
from minialex.recipe.fields import Recipe
from minialex.screen.formats import amount
from minialex.speed import machine
from minialex.speed.rates import Rates
from minialex.storage import atomic

REPORT = Path("minialex-doctor.json")
"""Where the report of ``--devices`` goes if no other place is named."""

OLDEST_CAPABILITY = (7, 5)
"""Compute capability below which CUDA 13 has no compiler: cards before Turing (2018)."""

PRETEND = "mend the lines above first (the same checks without a GPU: --backend numba --devices cpu:0,cpu:1)"

ROOM = 3 * 2**30
"""Bytes that the full network needs on a device with a small batch, and some."""


def _meter() -> Meter:
    return CupyMeter(import_module("cupy"))


@dataclass(frozen=True)
class Sources:
    """Where findings come from; tests put their own in place.

    Attributes:
        driver: gives the NVIDIA driver, or raises `DriverError`
        packages: gives versions by name
        probe: loads the CUDA libraries
        meter: gives what measures GPUs; called only where a driver shows a device and CuPy is sound
        host: gives the findings about the processor, for a backend that must work
        host_rates: measures it
        load: gives a backend
        recipe: what two devices train
        full: what they train for a few steps too, on GPUs
    """

    driver: Callable[[], Driver] = drivers.load
    packages: Callable[[], Mapping[str, str]] = wheels.installed
    probe: Callable[[Mapping[str, str]], list[Check]] = wheels.probe
    meter: Callable[[], Meter] = _meter
    host: Callable[[str], list[Check]] = processor.checks
    host_rates: Callable[[], Rates] = processor.measure
    load: Callable[[str, str], Backend] = lambda name, precision: registry.load(name, precision=precision)
    recipe: Callable[[str], Recipe] = pairs.small_recipe
    full: Callable[[str], Recipe | None] = pairs.full_recipe


@dataclass
class Report:
    """What was found."""

    asked: tuple[Area, ...]
    checks: list[Check] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    rates: dict[str, Rates] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether what was asked for works."""
        return works(self.checks, self.asked)

    def as_json(self, command: str) -> str:
        """Everything, with machine, versions, date and command."""
        found: dict[str, Any] = {
            "report": "minialex doctor",
            "command": command,
            **machine.describe(),
            "asked": list(self.asked),
            "works": self.works,
            "checks": [asdict(check) for check in self.checks],
            "devices": [asdict(device) for device in self.devices],
            "rates": {name: rates.as_json() for name, rates in self.rates.items()},
            "copies": [copy.as_json() for copy in self.copies],
            "columns": [outcome.as_json() for outcome in self.outcomes],
        }
        return json.dumps(found, indent=2) + "\n"


def examine(
    backend_name: str | None = None,
    devices: str | None = None,
    *,
    precision: str = "float32",
    steps: int = 1000,
    quick: bool = False,
    sources: Sources | None = None,
    progress: Progress = lambda what, done: None,
) -> Report:
    """Look at everything, and at two devices if `devices` names them.

    Args:
        backend_name: the backend that is asked about; None for ``cuda`` with `devices`, else for the default one
        devices: two of the backend's devices, or one twice; None for no checks of two devices
        steps: of the long comparison
        quick: measure nothing

    Raises:
        ConfigurationError: If there is no such backend or precision.
    """
    sources = sources or Sources()
    sources.recipe(precision)  # says if there is no such precision, before anything takes time
    name = backend_name or ("cuda" if devices is not None else registry.default_name())
    if name not in registry.installed() and name != "cuda":
        registry.load(name)  # says which there are
    on_gpu = name == "cuda"
    report = Report(("cpu", *(("cuda",) if on_gpu else ()), *(("pair",) if devices is not None else ())))
    progress("the processor", 0)
    report.checks += sources.host(name)
    if not quick:
        progress("the processor's rates", 0)
        _processor_rates(report, sources)
    progress("the driver", 0)
    driver = _driver(report, sources)
    packages = sources.packages()
    if driver is not None or on_gpu or any(name in packages for name in wheels.CUPY):
        cuda = driver.cuda() if driver is not None else None
        report.checks += wheels.checks(packages, cuda) + sources.probe(packages)
    meter = None
    if driver is not None and report.devices:
        report.checks += _peers(driver, report.devices)
        sound = works((c for c in report.checks if c.topic in ("CuPy", "cuBLAS", "NVRTC", "driver")), ("cuda",))
        if sound:
            meter = _gpu_rates(report, sources, driver, quick, progress)
    if on_gpu or driver is not None:
        report.checks.append(_cuda_backend(sources, precision))
    if devices is not None:
        _pair(report, sources, name, devices, precision, steps, driver, meter, progress)
    return report


def cards(sources: Sources | None = None) -> dict[str, Rates]:
    """Measured rates of this machine's GPUs, by name (``"cuda:0"``, …); some seconds.

    Raises:
        ResourceError: If there is no driver or card, or it cannot be measured, with what mends it.
    """
    sources = sources or Sources()
    report = Report(("cuda",))
    driver = _driver(report, sources)
    if driver is not None and report.devices:
        _gpu_rates(report, sources, driver, False, lambda what, done: None)
    broken = [check for check in report.checks if check.verdict == "problem"]
    if broken or driver is None:
        raise ResourceError(f"{broken[0].topic}: {broken[0].found}; {broken[0].mend}")
    return report.rates


def _processor_rates(report: Report, sources: Sources) -> None:
    try:
        found = sources.host_rates()
    except (MinialexError, MemoryError) as error:
        report.checks.append(Check("cpu", "rates", "note", f"could not be measured: {error}", "close other programs"))
        return
    report.rates["cpu"] = found
    product = amount(found.matrix["float32"], "FLOP/s")
    report.checks.append(
        Check("cpu", "rates", "ok", f"matrix products {product}, memory {amount(found.copy, 'B/s')} (read and written)")
    )


def _driver(report: Report, sources: Sources) -> Driver | None:
    try:
        driver = sources.driver()
        cuda = driver.cuda()
        report.devices = driver.devices()
    except DriverError as error:
        report.checks.append(Check("cuda", "driver", "problem", error.found, error.mend))
        return None
    release = drivers.release()
    text = f"{f'NVIDIA {release}, ' if release else ''}CUDA {cuda[0]}.{cuda[1]}"
    if cuda < wheels.OLDEST_CUDA:
        needed = f"{wheels.OLDEST_CUDA[0]}.{wheels.OLDEST_CUDA[1]}"
        text = f"{text} is too old: {needed} is needed"
        report.checks.append(Check("cuda", "driver", "problem", text, wheels.NEWER_DRIVER))
    else:
        report.checks.append(Check("cuda", "driver", "ok", text))
    if drivers.visible() is not None:
        text = f"CUDA_VISIBLE_DEVICES={drivers.visible()} chooses and numbers the cards"
        report.checks.append(Check("cuda", "devices", "note", text))
    if not report.devices:
        mend = "check that `nvidia-smi` lists a card and that CUDA_VISIBLE_DEVICES does not hide it"
        report.checks.append(Check("cuda", "devices", "problem", "the driver shows no device", mend))
    for device in report.devices:
        report.checks.append(_device(device))
    return driver


def _device(device: Device) -> Check:
    major, minor = device.capability
    text = (
        f"{device.name}, {device.memory / 2**30:.1f} GiB, compute capability {major}.{minor}, "
        f"{device.multiprocessors} multiprocessors"
    )
    topic = f"cuda:{device.index}"
    if device.capability < OLDEST_CAPABILITY:
        mend = "train on the processor: minialex train --backend numba"
        return Check("cuda", topic, "problem", f"{text}: CUDA 13 needs 7.5 (Turing, 2018) or newer", mend)
    if device.capability < (8, 0):
        return Check("cuda", topic, "ok", f"{text}; float32 alone: no tf32, no bfloat16")
    return Check("cuda", topic, "ok", text)


def _peers(driver: Driver, devices: Sequence[Device]) -> list[Check]:
    """One line for every two devices."""
    found = []
    for device in devices:
        for peer in devices[device.index + 1 :]:
            topic = f"cuda:{device.index}, cuda:{peer.index}"
            if driver.reaches(device.index, peer.index) and driver.reaches(peer.index, device.index):
                found.append(Check("cuda", topic, "ok", "peer access: copies go directly"))
            else:
                found.append(
                    Check("cuda", topic, "note", "no peer access: copies go through the host, which is slower")
                )
    return found


def _gpu_rates(report: Report, sources: Sources, driver: Driver, quick: bool, progress: Progress) -> Meter | None:
    """Free memory and rates of every device; the link between the first two."""
    try:
        meter = sources.meter()
    except Exception as error:  # whatever a broken CuPy raises when it is imported
        text = f"cannot be imported: {type(error).__name__}: {' '.join(str(error).split())[:160]}"
        report.checks.append(Check("cuda", "CuPy", "problem", text, wheels.INSTALL))
        return None
    for device in report.devices:
        name = f"cuda:{device.index}"
        try:
            free = meter.free(device.index)
            text = f"{free / 2**30:.1f} of {device.memory / 2**30:.1f} GiB free"
            if free < ROOM:
                mend = "end what uses the card (`nvidia-smi` lists it), or take a smaller --batch-size"
                report.checks.append(Check("cuda", f"{name} memory", "note", text, mend))
            else:
                report.checks.append(Check("cuda", f"{name} memory", "ok", text))
            if quick:
                continue
            progress(f"rates of {name}", 0)
            rates = meter.rates(device)
            report.rates[name] = rates
            products = ", ".join(f"{p} {amount(v, 'FLOP/s')}" for p, v in rates.matrix.items())
            host = amount(meter.from_host(device.index), "B/s")
            text = f"{products}; memory {amount(rates.copy, 'B/s')} (read and written), from the host {host}"
            report.checks.append(Check("cuda", f"{name} rates", "ok", text))
        except (ResourceError, MemoryError, RuntimeError) as error:
            text = f"could not be measured: {' '.join(str(error).split())}"
            report.checks.append(Check("cuda", f"{name} rates", "problem", text, "see the output of `nvidia-smi`"))
    if not quick and len(report.devices) > 1:
        first, second = report.devices[0].index, report.devices[1].index
        _link(report, pairs.copies(meter, (first, second), driver.reaches))
    return meter


def _link(report: Report, copies: Sequence[Copy]) -> None:
    """The rate of the link between two devices: that of the way that the backend's copies take."""
    sound = [copy for copy in copies if copy.equal and copy.source != copy.target]
    if len(sound) < len([copy for copy in copies if copy.source != copy.target]) and "pair" not in report.asked:
        first = next(copy for copy in copies if not copy.equal)
        text = f"copies between cuda:{first.source} and cuda:{first.target} fail or arrive changed"
        mend = f"minialex doctor --devices {first.source},{first.target}"
        report.checks.append(Check("cuda", "link", "note", text, mend))
    if not sound:
        return
    direct = [copy for copy in sound if copy.direct] or sound
    rate = min(copy.rate for copy in direct)
    for index in {direct[0].source, direct[0].target}:
        name = f"cuda:{index}"
        if name in report.rates:
            report.rates[name] = replace(report.rates[name], link=rate)
    report.checks.append(Check("cuda", "link", "ok", f"{amount(rate, 'B/s')} in one direction between two devices"))


def _cuda_backend(sources: Sources, precision: str) -> Check:
    if "cuda" not in registry.installed():
        return Check("cuda", "backend cuda", "problem", "not a part of this installation", wheels.INSTALL)
    try:
        backend = sources.load("cuda", precision)
    except BackendUnavailable as error:
        return Check("cuda", "backend cuda", "problem", str(error), "mend the lines above first")
    return Check("cuda", "backend cuda", "ok", f"works on {', '.join(backend.devices)}")


def _pair(
    report: Report,
    sources: Sources,
    name: str,
    devices: str,
    precision: str,
    steps: int,
    driver: Driver | None,
    meter: Meter | None,
    progress: Progress,
) -> None:
    """The checks of two devices."""
    if name not in registry.installed():
        report.checks.append(Check("pair", "two devices", "problem", f"there is no backend '{name}' here", PRETEND))
        return
    try:
        backend = sources.load(name, precision)
        placement = placement_of(backend, devices, 2)
    except BackendUnavailable as error:
        report.checks.append(Check("pair", "two devices", "problem", str(error), PRETEND))
        return
    except ConfigurationError as error:
        report.checks.append(Check("pair", "two devices", "problem", str(error), "name devices that are listed above"))
        return
    disturbed, alike = None, True
    if name == "cuda" and report.devices:
        numbers = int(placement[0].rpartition(":")[2]), int(placement[1].rpartition(":")[2])
        kinds = [(report.devices[n].name, report.devices[n].capability) for n in numbers]
        alike = kinds[0] == kinds[1]
        if not alike:
            text = f"{kinds[0][0]} and {kinds[1][0]} are unlike: the faster one waits, and bits may differ between them"
            report.checks.append(Check("pair", "two devices", "note", text))
        if meter is not None and driver is not None:
            progress("copies between the devices", 0)
            report.copies = pairs.copies(meter, numbers, driver.reaches)
            report.checks += [pairs.copy_check(copy) for copy in report.copies]
            _link(report, report.copies)
            disturbed = partial(meter.disturbed, numbers, 2012)
    full = sources.full(precision) if name == "cuda" else None
    report.outcomes, found = pairs.run(
        backend, placement, sources.recipe(precision), steps, disturbed, full, progress, alike=alike
    )
    report.checks += found


STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "missing": "dim"}
TITLES = {"cpu": "this machine", "cuda": "GPUs (for --backend cuda)", "pair": "two devices"}


def show(report: Report, screen: Console) -> None:
    """The findings, one a line, and below each what mends it; lines are not broken, so that they can be copied."""
    width = max(len(check.topic) for check in report.checks)
    for area, title in TITLES.items():
        checks = [check for check in report.checks if check.area == area]
        if checks:
            screen.print(title, style="bold", highlight=False, markup=False)
        for check in checks:
            missing = check.verdict == "problem" and area not in report.asked
            word = "missing" if missing else check.verdict
            line = Text.assemble(f"  {check.topic:<{width}}  ", (f"{word:<7}", STYLES[word]), f"  {check.found}")
            screen.print(line, soft_wrap=True)
            if check.mend:
                screen.print(Text(f"  {'':<{width}}  {'':<7}  → {check.mend}", "cyan"), soft_wrap=True)
    screen.print(verdict(report), style="bold green" if report.works else "bold red", highlight=False, markup=False)


def verdict(report: Report) -> str:
    """One line: whether what was asked for works."""
    wanted = "two devices" if "pair" in report.asked else "the CUDA backend" if "cuda" in report.asked else "training"
    if report.works:
        rest = "" if "cuda" in report.asked else " on this machine's processor"
        return f"{wanted[0].upper()}{wanted[1:]}: works{rest}"
    broken = [c for c in report.checks if c.verdict == "problem" and c.area in report.asked]
    return f"{wanted[0].upper()}{wanted[1:]}: does not work; first to mend: {broken[0].topic}"


def run(
    backend_name: str | None,
    devices: str | None,
    report_path: Path | None,
    precision: str,
    steps: int,
    quick: bool,
    sources: Sources | None = None,
) -> int:
    """Print the findings, write the report, and return 0 if what was asked for works, else 6."""
    path = report_path or (REPORT if devices is not None else None)
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigurationError(f"the report cannot be written to {path}: there is no folder {path.parent}")
    screen = Console(soft_wrap=True)
    quiet = Console(stderr=True)
    with quiet.status("looking …") as status:

        def progress(what: str, done: int) -> None:
            status.update(f"{what}{f', step {done:,}' if done else ' …'}")

        report = examine(
            backend_name, devices, precision=precision, steps=steps, quick=quick, sources=sources, progress=progress
        )
    show(report, screen)
    if path is not None:
        atomic.write_text(path, report.as_json(" ".join(["minialex", *sys.argv[1:]])))
        screen.print(f"report: {path}", highlight=False, markup=False)
    return 0 if report.works else 6
