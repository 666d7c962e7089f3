"""``minialex plan``: the arithmetic of `minialex.speed.plan`, for named or measured devices, as tables and JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minialex.backend.pretend import DEVICES
from minialex.engine.summary import summarise
from minialex.errors import ConfigurationError, nearest
from minialex.network import variants
from minialex.network.network import Network
from minialex.recipe.fields import Recipe
from minialex.screen.sheets import Sheet, amount, long_time, seconds
from minialex.speed import rates
from minialex.speed.plan import IMAGENET, Floor, Layout, averaged, floor, lay_out
from minialex.speed.rates import KNOWN, PRECISIONS, Rates
from minialex.storage.atomic import readable_size

SHARES = (1.0, 0.4, 0.25)
"""Parts of the floor's speed for which the time of a training is said: nobody runs at the floor."""


@dataclass(frozen=True)
class Setting:
    """What is planned.

    Attributes:
        recipe: with its number of classes
        labels: the devices as they were asked for
        devices: rates, each device once
        placement: for each column, the number of its device
        link: bytes a second in one direction, None for the devices' own
        images: of an epoch of the training whose time is said
    """

    recipe: Recipe
    labels: tuple[str, ...]
    devices: tuple[Rates, ...]
    placement: tuple[int, ...]
    link: float | None
    images: int

    @property
    def network(self) -> Network:
        """What the recipe describes."""
        return variants.build(self.recipe)

    @property
    def layout(self) -> Layout:
        """The network on its devices."""
        return lay_out(self.network, self.placement)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise ConfigurationError(f"{option} takes whole numbers of at least 1 separated by commas, got '{text}'")
    return tuple(dict.fromkeys(int(part) for part in parts))


def precisions(text: str | None, devices: Sequence[Rates]) -> tuple[str, ...]:
    """Precisions by name, or all that every device has."""
    if text is None:
        return tuple(name for name in PRECISIONS if all(name in device.matrix for device in devices))
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in PRECISIONS:
            known = ", ".join(PRECISIONS)
            raise ConfigurationError(f"no precision '{name}'; there are {known}.{nearest(name, PRECISIONS)}")
    return names


def find_devices(text: str, measured: dict[str, Rates]) -> tuple[tuple[str, ...], tuple[Rates, ...], tuple[int, ...]]:
    """Devices from the command line's text: labels, each device's rates once, and which of them each label is.

    A number, or ``backend:number``, is a device of this machine (or of the one that `measured` is from), ``cpu`` its
    processor (and so are the pretend devices ``cpu:0`` and ``cpu:1``); any other name is one of the table in
    `minialex.speed.rates`, and every mention of it is a card of its own.

    Raises:
        ConfigurationError: If one is not known, with the names that are.
    """
    labels, found, where = [], [], []
    seen: dict[str, int] = {}
    for part in (part.strip().lower() for part in text.split(",")):
        numbered = (name for name in measured if part.isdecimal() and name.partition(":")[2] == part)
        own = "cpu" if part in DEVICES else next(numbered, part)
        if own in KNOWN:
            found.append(KNOWN[own])
            where.append(len(found) - 1)
        elif own in measured:
            if own not in seen:
                seen[own] = len(found)
                found.append(measured[own])
            where.append(seen[own])
        else:
            names = [*KNOWN, *measured]
            hint = nearest(own, names)
            if own == "cpu" or own.isdecimal() or ":" in own:
                hint = " Make the report anew on a machine that has it: minialex doctor --report FILE"
            raise ConfigurationError(f"no rates for device '{part}'; known are {', '.join(names)}.{hint}")
        labels.append(own)
    return tuple(labels), tuple(found), tuple(where)


def measure(text: str) -> dict[str, Rates]:
    """Rates of this machine, as far as devices of it are named: of its processor, of its GPUs.

    Raises:
        ResourceError: If GPUs are named and there are none, or they cannot be measured.
    """
    parts = [part.strip().lower() for part in text.split(",")]
    measured: dict[str, Rates] = {}
    if any(part == "cpu" or part in DEVICES for part in parts):
        from minialex.doctor import processor

        measured["cpu"] = processor.measure()
    if any(part.isdecimal() or ":" in part for part in parts if part not in DEVICES):
        from minialex.doctor.devices import cards

        measured |= cards()
    return measured


def setting(recipe: Recipe, text: str, measured: dict[str, Rates], link: str | None, images: int) -> Setting:
    """What is planned, from the command line's texts.

    Raises:
        ConfigurationError: If devices are not known, or there are neither one nor as many as the network has columns.
    """
    if recipe.classes == 0:
        recipe = recipe.replace(classes=1000 if recipe.model == "alexnet" else 10)
    labels, found, where = find_devices(text, measured)
    if len(where) not in (1, recipe.columns):
        raise ConfigurationError(
            f"--devices names {len(where)} devices for {recipe.columns} columns; give one or {recipe.columns}"
        )
    placement = where if len(where) > 1 else where * recipe.columns
    speed = None if link is None else rates.link(link)
    return Setting(recipe, labels, found, placement, speed, images)


def floors(plan: Setting, names: Sequence[str], batches: Sequence[int]) -> list[Floor]:
    """The floor of every precision at every batch size."""
    layout = plan.layout
    return [floor(layout, plan.devices, name, batch, plan.link) for name in names for batch in batches]


def sheets(plan: Setting, names: Sequence[str], batches: Sequence[int]) -> list[Sheet]:
    """All tables: the step, the whole training, the layers, the exchange."""
    found = floors(plan, names, batches)
    tables = [steps(plan, found), training(plan, found), layers(plan, names, batches[-1])]
    if plan.layout.exchanges:
        tables += [exchange(plan, names, batches[-1]), alternatives(plan, names, batches)]
    return tables


def _places(plan: Setting) -> str:
    return ", ".join(plan.labels)


def steps(plan: Setting, found: Sequence[Floor]) -> Sheet:
    """The floor of a training step."""
    divided = bool(plan.layout.exchanges)
    header = ["precision", "batch", "computing", *(["on the link"] if divided else []), "step", "images/s"]
    rows = []
    for one in found:
        link = [seconds(one.exchanging)] if divided else []
        rows.append(
            [one.precision, f"{one.batch:,}", seconds(one.computing), *link, seconds(one.seconds),
             f"{one.images_per_second():,.0f}"]
        )  # fmt: skip
    return Sheet(f"Floor of a training step on {_places(plan)}", tuple(header), rows)


def training(plan: Setting, found: Sequence[Floor]) -> Sheet:
    """The time of a whole training, at the floor and at parts of its speed."""
    header = ("precision", "batch", *(f"at {share:.0%} of the floor's speed" for share in SHARES))
    rows = [
        [one.precision, f"{one.batch:,}",
         *(long_time(one.training_seconds(plan.images, plan.recipe.epochs) / share) for share in SHARES)]
        for one in found
    ]  # fmt: skip
    return Sheet(f"Training of {plan.recipe.epochs} epochs of {plan.images:,} images on {_places(plan)}", header, rows)


def layers(plan: Setting, names: Sequence[str], batch: int) -> Sheet:
    """The floor of every layer, forward and backward together, and what limits it."""
    found = floors(plan, names, [batch])
    rows = []
    for lines in zip(*(one.lines for one in found), strict=True):
        times = [f"{seconds(line.seconds)}{' *' if line.limit == 'memory' else '  '}" for line in lines]
        rows.append([lines[0].layer, f"{lines[0].flops / 1e9:,.1f}", *times])
    whose = ", where it takes longest" if len(plan.devices) > 1 else ""
    title = f"Floor by layer at batch {batch:,} on {_places(plan)}{whose} (* limited by memory, not arithmetic)"
    return Sheet(title, ("layer", "GFLOP", *names), rows)


def exchange(plan: Setting, names: Sequence[str], batch: int) -> Sheet:
    """What crosses between the columns."""
    layout = plan.layout
    header = ["from", "into", "values an image", *(f"{name}, batch {batch:,}" for name in names)]
    found = floors(plan, names, [batch])
    rows = []
    for index, one in enumerate(layout.exchanges):
        sizes = [amount(f.crossings[index].bytes, "B") + ", " + seconds(f.crossings[index].seconds) for f in found]
        rows.append([one.source, one.reader, f"{one.values:,}", *sizes])
    total = [amount(f.exchanged, "B") + ", " + seconds(f.exchanging) for f in found]
    rows.append(["a step", "forward and backward", f"{layout.exchanged:,}", *total])
    return Sheet("Exchange between the columns, one pass, in the busier direction", tuple(header), rows, left=2)


def alternatives(plan: Setting, names: Sequence[str], batches: Sequence[int]) -> Sheet:
    """The columns beside two replicas whose gradients are averaged."""
    header = ("precision", "batch", "columns send", "columns' step", "replicas send", "replicas' step")
    rows = []
    for one in floors(plan, names, batches):
        other = averaged(plan.network, plan.recipe.columns, plan.devices, one.precision, one.batch, plan.link)
        rows.append(
            [one.precision, f"{one.batch:,}", amount(one.exchanged, "B"), seconds(one.seconds),
             amount(other.exchanged, "B"), seconds(other.seconds)]
        )  # fmt: skip
    return Sheet("The network split in columns, and whole on each device with averaged gradients", header, rows)


def remarks(plan: Setting, batch: int) -> list[str]:
    """Sentences below the tables; the batch is that whose memory is told."""
    said = []
    for rate in {rate.name: rate for rate in plan.devices}.values():
        products = ", ".join(f"{name} {amount(value, 'FLOP/s')}" for name, value in rate.matrix.items())
        link = f"; link {amount(rate.link, 'B/s')} each way" if rate.link else ""
        said.append(f"{rate.name}: {products}; memory {amount(rate.copy, 'B/s')}{link} ({rate.source})")
    layout = plan.layout
    if layout.exchanges:
        said.append(
            f"Averaging the gradients of {layout.parameters:,} parameters instead sends as many bytes at a global "
            f"batch of {layout.crossover:,.0f} images; the columns send fewer below (counting every byte of both "
            f"directions, which links carry at once: {layout.crossover_both:,.0f})."
        )
    else:
        said.append(memory(plan, batch))
    said.append(
        "A floor is what shapes and rates allow at best, not a measurement: ReLU, dropout and cutting the input free, "
        "normalisation with pooling one pass each way, multiply-adds as the definition has them; in bfloat16 "
        "activations and gradients are kept and sent in two bytes."
    )
    return said


def memory(plan: Setting, batch: int) -> str:
    """What a step on one device needs, and whether it is there."""
    found = summarise(plan.recipe, batch)
    needed = found.parameter_bytes + found.activation_bytes
    there = plan.devices[0].memory
    fits = "" if there is None else f"; {plan.devices[0].name} has {readable_size(there)}"
    if there is not None and needed > there:
        fits += ", too little: take a smaller --batch-size"
    return (
        f"Memory of a step of {batch:,} images whose layers are walked in {plan.recipe.dtype}: weights, momentum and "
        f"gradients {readable_size(found.parameter_bytes)}, activations {readable_size(found.activation_bytes)}{fits}."
    )


def as_json(plan: Setting, names: Sequence[str], batches: Sequence[int]) -> str:
    """Everything as JSON; bytes, seconds, values."""
    layout = plan.layout
    found: dict[str, Any] = {
        "network": plan.recipe.model,
        "columns": plan.recipe.columns,
        "parameters": layout.parameters,
        "devices": list(plan.labels),
        "placement": list(plan.placement),
        "rates": [rate.as_json() for rate in plan.devices],
        "link": plan.link,
        "exchanged_values": [
            {"from": e.source, "into": e.reader, "values": e.values, "both_directions": e.both}
            for e in layout.exchanges
        ],
        "crossover_batch": layout.crossover if layout.exchanges else None,
        "crossover_batch_both_directions": layout.crossover_both if layout.exchanges else None,
        "epochs": plan.recipe.epochs,
        "images": plan.images,
        "steps": [],
    }
    for one in floors(plan, names, batches):
        entry = {**one.as_json(), "training_seconds": one.training_seconds(plan.images, plan.recipe.epochs)}
        if layout.exchanges:
            other = averaged(plan.network, plan.recipe.columns, plan.devices, one.precision, one.batch, plan.link)
            entry["averaged_gradients"] = {"exchanged_bytes": other.exchanged, "seconds": other.seconds}
        found["steps"].append(entry)
    return json.dumps(found, indent=2)


def picture(plan: Setting, name: str, batch: int, path: Path) -> None:
    """Two drawings as a PNG: the step by layer, and the bytes sent by batch size."""
    from matplotlib.figure import Figure

    from minialex.figures import pictures

    (one,) = floors(plan, [name], [batch])
    layout = plan.layout
    figure = Figure(figsize=(11, 4.6) if layout.exchanges else (6.5, 4.6), layout="constrained")
    left, *rest = figure.subplots(1, 2 if layout.exchanges else 1, squeeze=False)[0]
    names = [line.layer for line in one.lines]
    left.barh(names, [line.forward * 1e6 for line in one.lines], color="#4477aa", label="forward")
    left.barh(
        names, [line.backward * 1e6 for line in one.lines], left=[line.forward * 1e6 for line in one.lines],
        color="#ee6677", label="backward, update",
    )  # fmt: skip
    left.invert_yaxis()
    left.set_xlabel("µs, at the floor")
    left.set_title(f"a step of {batch:,} images in {name} on {_places(plan)}", fontsize=10)
    left.legend(frameon=False)
    for axes in rest:
        size = PRECISIONS[name]
        ends = [16, max(4096, 2 * batch)]
        axes.plot(ends, [layout.exchanged * size * n / 1e6 for n in ends], color="#4477aa", label="columns, as in 2012")
        axes.axhline(layout.parameters * size / 1e6, color="#ee6677", label="replicas, gradients averaged")
        axes.axvline(layout.crossover, color="#777777", linewidth=0.8, linestyle="--")
        axes.annotate(
            f"{layout.crossover:,.0f} images", (layout.crossover, layout.parameters * size / 1e6),
            xytext=(-6, 8), textcoords="offset points", ha="right",
        )  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        low, high = (math.floor(math.log10(layout.exchanged * size * n / 1e6)) for n in ends)
        decades = [10.0**power for power in range(low, high + 2)]
        axes.set_yticks(decades, [f"{value:,g}" for value in decades])
        axes.set_yticks([], minor=True)
        axes.set_xticks([2**n for n in range(4, 13, 2)], [f"{2**n:,}" for n in range(4, 13, 2)])
        axes.set_xlabel("images of a step, all devices together")
        axes.set_ylabel("MB a step, each direction")
        axes.set_title(f"sent in {name}", fontsize=10)
        axes.legend(frameon=False)
    pictures.save(figure, path)


def run(
    recipe: Recipe,
    devices: str | None,
    batch_sizes: str | None,
    precision: str | None,
    rates_file: Path | None,
    link: str | None,
    images: int = IMAGENET,
    *,
    json_output: bool = False,
    markdown: bool = False,
    picture_path: Path | None = None,
) -> None:
    """Print the plan (see ``minialex plan --help``)."""
    from rich.console import Console

    if json_output and markdown:
        raise ConfigurationError("give --json or --markdown, not both")
    measured = rates.read(rates_file) if rates_file is not None else {}
    text = devices or next((name for name in measured if ":" in name), "cpu")
    if rates_file is None:
        measured = measure(text)
    plan = setting(recipe, text, measured, link, images)
    names = precisions(precision, plan.devices)
    batches = numbers(batch_sizes or str(recipe.batch_size), "--batch-size")
    tables = sheets(plan, names, batches)
    if json_output:
        print(as_json(plan, names, batches))
    elif markdown:
        print("\n".join(table.markdown() for table in tables))
        print("\n".join(f"{said}\n" for said in remarks(plan, batches[-1])))
    else:
        screen = Console(width=max(Console().width, 100))
        for table in tables:
            screen.print(table.rich())
        for said in remarks(plan, batches[-1]):
            screen.print(said, highlight=False, markup=False)
    if picture_path is not None:
        picture(plan, names[-1], batches[-1], picture_path)
