"""All findings of ``minialex doctor``, on the screen and as one JSON report."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from minialex.backend import registry
from minialex.backend.findings import Check, Copy, Device, Diagnosis, works
from minialex.backend.protocol import Backend
from minialex.doctor import pair as pairs
from minialex.doctor import processor, ranks
from minialex.doctor.devices import Diagnose, diagnoses, rates_of, with_link
from minialex.doctor.pair import Outcome, Progress
from minialex.engine.session import placement_of
from minialex.errors import BackendUnavailable, ConfigurationError, MinialexError, ResourceError
from minialex.recipe.fields import Recipe
from minialex.screen.formats import amount
from minialex.screen.terminal import console, waiting
from minialex.speed import machine
from minialex.speed.rates import Rates
from minialex.storage import atomic

REPORT = Path("minialex-doctor.json")
"""The default file for the report of ``--devices``."""


@dataclass(frozen=True)
class Sources:
    """Where findings come from; tests substitute their own.

    Attributes:
        host: returns the findings about the processor, for a backend that must work
        host_rates: measures the processor
        diagnoses: returns what backends know about their own devices
        ranks: returns the findings about several processes; takes whether to measure
        load: returns a backend
        recipe: the recipe that two devices train
        full: the recipe that they also train for a few steps, on a backend's own devices
    """

    host: Callable[[str], list[Check]] = processor.checks
    host_rates: Callable[[], Rates] = processor.measure
    diagnoses: Callable[[], Mapping[str, Diagnose]] = diagnoses
    ranks: Callable[[bool], list[Check]] = lambda measure: ranks.checks(measure)  # noqa: PLW0108 - looked up late
    load: Callable[[str, str], Backend] = lambda name, precision: registry.load(name, precision=precision)
    recipe: Callable[[str], Recipe] = pairs.small_recipe
    full: Callable[[str], Recipe | None] = pairs.full_recipe


@dataclass
class Report:
    """What was found."""

    asked: tuple[str, ...]
    checks: list[Check] = field(default_factory=list)
    devices: list[Device] = field(default_factory=list)
    rates: dict[str, Rates] = field(default_factory=dict)
    copies: list[Copy] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def works(self) -> bool:
        """Whether everything requested works."""
        return works(self.checks, self.asked)

    @property
    def own(self) -> str | None:
        """The requested backend, if it has devices of its own."""
        return next((area for area in self.asked if area not in ("cpu", "pair")), None)

    def as_json(self, command: str) -> str:
        """All findings, with machine, versions, date and command."""
        found: dict[str, Any] = {
            "report": "minialex doctor",
            "command": command,
            **machine.describe(),
            "asked": list(self.asked),
            "works": self.works,
            "checks": [asdict(check) for check in self.checks],
            "devices": [asdict(device) for device in self.devices],
            "rates": {name: rates.as_json() for name, rates in self.rates.items()},
            "copies": [asdict(copy) for copy in self.copies],
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
    """Examine everything, including two devices if `devices` names them.

    Args:
        backend_name: the backend to examine; None for the default one or, with `devices`, one with devices of its own
        devices: two of the backend's devices, or one twice; None for no checks of two devices
        precision: precision of the network that two devices train
        steps: number of steps of the long comparison
        quick: whether to skip all measurements
        sources: where findings come from
        progress: called with the current task and its step

    Raises:
        ConfigurationError: If there is no such backend or precision.
    """
    sources = sources or Sources()
    sources.recipe(precision)  # raises if there is no such precision, before anything takes time
    diagnosing = sources.diagnoses()
    default = registry.default_name()
    name = backend_name or (next(iter(diagnosing), default) if devices is not None else default)
    if name not in registry.installed():
        registry.kind(name)  # its error lists the backends
    own, two = (name,) if name in diagnosing else (), ("pair",) if devices is not None else ()
    report = Report(("cpu", *own, *two))
    progress("the processor", 0)
    report.checks += sources.host(name)
    if not quick:
        progress("the processor's rates", 0)
        _processor_rates(report, sources)
    diagnosis = None
    for other, diagnose in diagnosing.items():
        progress(f"devices of the {other} backend", 0)
        found = diagnose(other == name)
        report.checks += found.checks
        report.devices += found.devices
        if found.measurable and not quick:
            _rates(report, other, found, progress)
        if other == name or found.devices:
            report.checks.append(_backend(sources, other, precision))
        if other == name:
            diagnosis = found
    progress("several processes", 0)
    report.checks += sources.ranks(not quick)
    if devices is not None:
        _pair(report, sources, name, devices, precision, steps, diagnosis, progress)
    return report


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


def _rates(report: Report, name: str, diagnosis: Diagnosis, progress: Progress) -> None:
    """Measure the rates of every device of a backend, and the link between the first two."""
    for device in diagnosis.devices:
        label = f"{name}:{device.index}"
        progress(f"rates of {label}", 0)
        try:
            found = diagnosis.measure(device.index)
        except ResourceError as error:
            mend = "stop whatever else uses the device, and run this again"
            report.checks.append(Check(name, f"{label} rates", "problem", f"could not be measured: {error}", mend))
            continue
        report.rates[label] = rates_of(device, found)
        products = ", ".join(f"{p} {amount(v, 'FLOP/s')}" for p, v in found.matrix.items())
        text = (
            f"{products}; memory {amount(found.copy, 'B/s')} (read and written), "
            f"from the host {amount(found.from_host, 'B/s')}"
        )
        report.checks.append(Check(name, f"{label} rates", "ok", text))
    if len(diagnosis.devices) > 1:
        _link(report, name, diagnosis.copies(0, 1))


def _link(report: Report, name: str, copies: Sequence[Copy]) -> None:
    """Add the rate of the link between two devices, on the path that the backend's copies take."""
    broken = next((copy for copy in copies if not copy.equal and copy.source != copy.target), None)
    if broken and "pair" not in report.asked:
        text = f"copies between {name}:{broken.source} and {name}:{broken.target} fail, or the bytes arrive changed"
        mend = f"minialex doctor --devices {broken.source},{broken.target}"
        report.checks.append(Check(name, "link", "note", text, mend))
    report.rates, rate = with_link(report.rates, name, copies)
    if rate is not None:
        report.checks.append(Check(name, "link", "ok", f"{amount(rate, 'B/s')} in one direction between two devices"))


def _backend(sources: Sources, name: str, precision: str) -> Check:
    try:
        backend = sources.load(name, precision)
    except BackendUnavailable as error:
        return Check(name, f"backend {name}", "problem", str(error), "fix the lines above first")
    return Check(name, f"backend {name}", "ok", f"works on {', '.join(backend.devices)}")


def _pair(
    report: Report,
    sources: Sources,
    name: str,
    devices: str,
    precision: str,
    steps: int,
    diagnosis: Diagnosis | None,
    progress: Progress,
) -> None:
    """Run the checks of two devices."""
    try:
        backend = sources.load(name, precision)
        placement = placement_of(backend, devices, 2)
    except BackendUnavailable as error:
        pretend = f"--backend {registry.default_name()} --devices cpu:0,cpu:1"
        mend = f"fix the lines above first (the same checks on pretend devices: {pretend})"
        report.checks.append(Check("pair", "two devices", "problem", str(error), mend))
        return
    except ConfigurationError as error:
        report.checks.append(
            Check("pair", "two devices", "problem", str(error), "choose from the devices listed above")
        )
        return
    disturbed, alike = None, True
    if diagnosis is not None and diagnosis.devices:
        first, second = (int(device.rpartition(":")[2]) for device in placement)
        kinds = [(diagnosis.devices[n].name, diagnosis.devices[n].capability) for n in (first, second)]
        alike = kinds[0] == kinds[1]
        if not alike:
            text = f"{kinds[0][0]} and {kinds[1][0]} are different: the faster one waits, and their bits may differ"
            report.checks.append(Check("pair", "two devices", "note", text))
        if diagnosis.measurable:
            progress("copies between the devices", 0)
            report.copies = diagnosis.copies(first, second)
            report.checks += [pairs.copy_check(copy, name) for copy in report.copies]
            _link(report, name, report.copies)
            disturbed = partial(diagnosis.disturbed, (first, second), 2012)
    full = sources.full(precision) if diagnosis is not None else None
    report.outcomes, found = pairs.run(
        backend, placement, sources.recipe(precision), steps, disturbed, full, progress, alike=alike
    )
    report.checks += found


STYLES = {"ok": "green", "note": "yellow", "problem": "bold red", "missing": "dim"}
TITLES = {"cpu": "this machine", "pair": "two devices", "ranks": "several processes (train --ranks)"}


def show(report: Report, screen: Console) -> None:
    """Print the findings, each with its remedy below, which is not wrapped, so that it can be copied.

    On a terminal a finding is wrapped beside its topic; in a file it is one line.
    """
    width = max(len(check.topic) for check in report.checks)
    room = max(30, screen.width - width - 13) if screen.is_terminal else None
    areas = sorted(
        {check.area for check in report.checks}, key=lambda area: (area == "pair", area == "ranks", area != "cpu", area)
    )
    for area in areas:
        checks = [check for check in report.checks if check.area == area]
        title = TITLES.get(area, f"devices for --backend {area}")
        screen.print(title, style="bold")
        for check in checks:
            missing = check.verdict == "problem" and area not in report.asked
            word = "missing" if missing else check.verdict
            first, *rest = [check.found] if room is None else textwrap.wrap(
                check.found, room, break_long_words=False, break_on_hyphens=False
            ) or [""]  # fmt: skip
            screen.print(Text.assemble(f"  {check.topic:<{width}}  ", (f"{word:<7}", STYLES[word]), f"  {first}"))
            for more in rest:
                screen.print(f"{'':<{width + 13}}{more}")
            if check.mend:
                screen.print(Text(f"  {'':<{width}}  {'':<7}  → {check.mend}", "cyan"))
    screen.print(verdict(report), style="bold green" if report.works else "bold red")


def verdict(report: Report) -> str:
    """One line that says whether everything requested works."""
    alone = f"the {report.own} backend" if report.own else "training"
    wanted = "two devices" if "pair" in report.asked else alone
    if report.works:
        rest = "" if report.own else " on this machine's processor"
        return f"{wanted[0].upper()}{wanted[1:]}: works{rest}"
    broken = [c for c in report.checks if c.verdict == "problem" and c.area in report.asked]
    return f"{wanted[0].upper()}{wanted[1:]}: does not work; fix first: {broken[0].topic}"


def run(
    backend_name: str | None,
    devices: str | None,
    report_path: Path | None,
    precision: str,
    steps: int,
    quick: bool,
    sources: Sources | None = None,
) -> int:
    """Print the findings, write the report, and return 0 if everything requested works, else 6."""
    path = report_path or (REPORT if devices is not None else None)
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigurationError(f"the report cannot be written to {path}: there is no folder {path.parent}")
    screen = console()
    with waiting(console(stderr=True), "looking …") as say:

        def progress(what: str, done: int) -> None:
            say(f"{what}{f', step {done:,}' if done else ' …'}")

        report = examine(
            backend_name, devices, precision=precision, steps=steps, quick=quick, sources=sources, progress=progress
        )
    show(report, screen)
    if path is not None:
        atomic.write_text(path, report.as_json(" ".join(["minialex", *sys.argv[1:]])))
        screen.print(f"report: {path}")
    return 0 if report.works else 6
