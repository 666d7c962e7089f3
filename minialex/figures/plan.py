"""The output of ``minialex plan``: `minialex.speed.plan`'s results as tables, sentences, JSON and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from minialex.engine.summary import summarise
from minialex.errors import ConfigurationError
from minialex.network import variants
from minialex.network.network import Network
from minialex.recipe.fields import Recipe
from minialex.screen.formats import amount, long_time, plural, readable_size, seconds
from minialex.screen.sheet import Sheet
from minialex.speed.energy import PAPER_DAYS, kilowatt_hours, paper_kilowatt_hours
from minialex.speed.plan import Floor, Layout, averaged, floor, lay_out
from minialex.speed.rates import KNOWN, PRECISIONS, Rates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (1.0, 0.4, 0.25)
"""Fractions of the floor's speed for which training times are shown: nothing runs at the floor."""


@dataclass(frozen=True)
class Setting:
    """What is planned.

    Attributes:
        recipe: the recipe, with its number of classes
        labels: the devices as the command line names them
        devices: rates, one per device
        placement: for each column, the number of its device
        link: bytes per second in one direction, None for the devices' own
        images: images per epoch of the training whose time is reported
        watts: watts per device, None for the manufacturers' figures
    """

    recipe: Recipe
    labels: tuple[str, ...]
    devices: tuple[Rates, ...]
    placement: tuple[int, ...]
    link: float | None
    images: int
    watts: float | None = None

    @property
    def power(self) -> float | None:
        """Watts of all devices together, counting pretend devices of one machine once; None if some are unknown."""
        each = [self.watts or rates.watts for rates in self.cards]
        return None if None in each else math.fsum(watts for watts in each if watts is not None)

    @property
    def cards(self) -> tuple[Rates, ...]:
        """The devices that columns are on, each once."""
        return tuple(self.devices[n] for n in sorted(set(self.placement)))

    @property
    def network(self) -> Network:
        """The network that the recipe describes."""
        return variants.build(self.recipe)

    @property
    def layout(self) -> Layout:
        """The network on its devices."""
        return lay_out(self.network, self.placement)

    @property
    def names(self) -> str:
        """The devices, for a title."""
        return ", ".join(self.labels)

    def floors(self, precisions: Sequence[str], batches: Sequence[int]) -> list[Floor]:
        """The floor of every precision at every batch size."""
        layout = self.layout
        return [floor(layout, self.devices, name, batch, self.link) for name in precisions for batch in batches]

    def replicas(self, columns: Floor) -> Floor:
        """The floor with a whole network on each device and averaged gradients, at the batch size of another floor."""
        return averaged(self.network, self.recipe.columns, self.devices, columns.precision, columns.batch, self.link)


def tables(plan: Setting, precisions: Sequence[str], batches: Sequence[int]) -> list[Sheet]:
    """The tables of the step, the whole training, the layers and the exchange."""
    floors = plan.floors(precisions, batches)
    sheets = [steps(plan, floors), training(plan, floors), layers(plan, precisions, batches[-1])]
    if plan.layout.exchanges:
        sheets += [exchange(plan, precisions, batches[-1]), alternatives(plan, floors)]
    return sheets


def steps(plan: Setting, floors: Sequence[Floor]) -> Sheet:
    """The floor of a training step."""
    divided = bool(plan.layout.exchanges)
    header = ["precision", "batch", "computing", *(["on the link"] if divided else []), "step", "images/s"]
    rows = []
    for one in floors:
        times = [one.computing, *([one.exchanging] if divided else []), one.seconds]
        rows.append([one.precision, f"{one.batch:,}", *map(seconds, times), f"{one.images_per_second():,.0f}"])
    return Sheet(f"Floor of a training step on {plan.names}", header, rows)


def training(plan: Setting, floors: Sequence[Floor]) -> Sheet:
    """The time of a whole training run, at the floor and at fractions of its speed."""
    header = ["precision", "batch", *(f"at {share:.0%} of the floor's speed" for share in SHARES)]
    rows = []
    for one in floors:
        whole = one.training_seconds(plan.images, plan.recipe.epochs)
        rows.append([one.precision, f"{one.batch:,}", *(long_time(whole / share) for share in SHARES)])
    return Sheet(
        f"Training of {plural(plan.recipe.epochs, 'epoch')} of {plural(plan.images, 'image')} on {plan.names}",
        header,
        rows,
    )


def energy(plan: Setting, floors: Sequence[Floor]) -> Sheet:
    """The energy of a whole training run at the stated watts; see `minialex.speed.energy`.

    Raises:
        ConfigurationError: If the watts of a device are unknown.
    """
    watts = needed_power(plan)
    header = ["precision", "batch", "watts", *(f"kWh at {share:.0%} of the floor's speed" for share in SHARES)]
    rows = []
    for one in floors:
        whole = one.training_seconds(plan.images, plan.recipe.epochs)
        used = [_kwh(kilowatt_hours(watts, whole / share)) for share in SHARES]
        rows.append([one.precision, f"{one.batch:,}", f"{watts:,g}", *used])
    title = f"Energy of {plural(plan.recipe.epochs, 'epoch')} of {plural(plan.images, 'image')} on {plan.names}"
    return Sheet(title, header, rows)


def needed_power(plan: Setting) -> float:
    """Watts of all devices together.

    Raises:
        ConfigurationError: If the watts of a device are unknown.
    """
    unknown = [rates.name for rates in plan.cards if not (plan.watts or rates.watts)]
    if plan.power is None:
        raise ConfigurationError(f"the power of {unknown[0]} is not known; give the watts of each device with --watts")
    return plan.power


def energy_remarks(plan: Setting) -> list[str]:
    """Sentences on where the watts come from and what is left out."""
    text = []
    for rates in {rates.name: rates for rates in plan.cards}.values():
        source = f"{plan.watts:g} W as given" if plan.watts else f"{rates.watts:g} W ({rates.watts_source})"
        text.append(f"{rates.name}: {source}")
    least, most = map(_kwh, paper_kilowatt_hours())
    theirs = KNOWN["gtx580"]
    text.append(
        f"The paper's training took two GTX 580, {theirs.watts:g} W each ({theirs.watts_source}), for "
        f"{PAPER_DAYS[0]} to {PAPER_DAYS[1]} days (section 5): {least} to {most} kWh."
    )
    text.append(
        "Of the devices alone: the machine around them, its cooling, and every training that led to this one are left "
        "out. Watts are the most that a device takes, and one that waits takes less, so that at a part of the floor's "
        "speed this is an upper bound."
    )
    return text


def _kwh(value: float) -> str:
    return f"{float(f'{value:.3g}'):,g}"


def layers(plan: Setting, precisions: Sequence[str], batch: int) -> Sheet:
    """The floor of every layer, forward and backward together, and what limits it."""
    rows = []
    for lines in zip(*(one.lines for one in plan.floors(precisions, [batch])), strict=True):
        times = [f"{seconds(line.seconds)}{' *' if line.limit == 'memory' else '  '}" for line in lines]
        rows.append([lines[0].layer, f"{lines[0].flops / 1e9:,.1f}", *times])
    whose = ", where it takes longest" if len(plan.devices) > 1 else ""
    title = f"Floor by layer at batch {batch:,} on {plan.names}{whose} (* limited by memory, not arithmetic)"
    return Sheet(title, ("layer", "GFLOP", *precisions), rows)


def exchange(plan: Setting, precisions: Sequence[str], batch: int) -> Sheet:
    """What crosses between the columns."""
    layout, floors = plan.layout, plan.floors(precisions, [batch])
    rows = []
    for index, one in enumerate(layout.exchanges):
        crossings = [each.crossings[index] for each in floors]
        sizes = [f"{amount(crossing.bytes, 'B')}, {seconds(crossing.seconds)}" for crossing in crossings]
        rows.append([one.source, one.reader, f"{one.values:,}", *sizes])
    sums = [f"{amount(each.exchanged, 'B')}, {seconds(each.exchanging)}" for each in floors]
    rows.append(["a step", "forward and backward", f"{layout.exchanged:,}", *sums])
    header = ["from", "into", "values an image", *(f"{name}, batch {batch:,}" for name in precisions)]
    return Sheet("Exchange between the columns, one pass, in the busier direction", header, rows, "llr")


def alternatives(plan: Setting, floors: Sequence[Floor]) -> Sheet:
    """The columns compared with two replicas whose gradients are averaged."""
    rows = []
    for one in floors:
        cells = [
            cell for each in (one, plan.replicas(one)) for cell in (amount(each.exchanged, "B"), seconds(each.seconds))
        ]
        rows.append([one.precision, f"{one.batch:,}", *cells])
    header = ("precision", "batch", "columns send", "columns' step", "replicas send", "replicas' step")
    return Sheet("The network split in columns, and whole on each device with averaged gradients", header, rows)


def remarks(plan: Setting, batch: int) -> list[str]:
    """The sentences below the tables, for the batch size whose memory is reported."""
    text = []
    for rate in {rate.name: rate for rate in plan.devices}.values():
        products = ", ".join(f"{name} {amount(value, 'FLOP/s')}" for name, value in rate.matrix.items())
        link = f"; link {amount(rate.link, 'B/s')} each way" if rate.link else ""
        text.append(f"{rate.name}: {products}; memory {amount(rate.copy, 'B/s')}{link} ({rate.source})")
    layout = plan.layout
    if layout.exchanges:
        text.append(
            f"Averaging the gradients of {layout.parameters:,} parameters instead sends as many bytes at a global "
            f"batch of {layout.crossover:,.0f} images; the columns send fewer below (counting every byte of both "
            f"directions, which links carry at once: {layout.crossover_both:,.0f})."
        )
    else:
        text.append(memory(plan, batch))
    text.append(
        "A floor is what shapes and rates allow at best, not a measurement: ReLU, dropout and cutting the input free, "
        "normalisation with pooling one pass each way, multiply-adds as the definition has them; in bfloat16 "
        "activations and gradients are kept and sent in two bytes."
    )
    return text


def memory(plan: Setting, batch: int) -> str:
    """The memory that a step needs on one device, and whether it has that much."""
    network = summarise(plan.recipe, batch)
    needed = network.parameter_bytes + network.activation_bytes
    available = plan.devices[0].memory
    fits = "" if available is None else f"; {plan.devices[0].name} has {readable_size(available)}"
    if available is not None and needed > available:
        fits += ", too little: take a smaller --batch-size"
    return (
        f"Memory of a step of {plural(batch, 'image')} whose layers are walked in {plan.recipe.dtype}: weights, "
        f"momentum and gradients {readable_size(network.parameter_bytes)}, activations "
        f"{readable_size(network.activation_bytes)}{fits}."
    )


def as_json(plan: Setting, precisions: Sequence[str], batches: Sequence[int]) -> str:
    """Everything as JSON, in bytes, seconds and values."""
    layout = plan.layout
    report: dict[str, Any] = {
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
    for one in plan.floors(precisions, batches):
        whole = one.training_seconds(plan.images, plan.recipe.epochs)
        entry = {**one.as_json(), "training_seconds": whole}
        if plan.power is not None:
            entry["training_kilowatt_hours"] = kilowatt_hours(plan.power, whole)
        if layout.exchanges:
            other = plan.replicas(one)
            entry["averaged_gradients"] = {"exchanged_bytes": other.exchanged, "seconds": other.seconds}
        report["steps"].append(entry)
    return json.dumps(report, indent=2)


def picture(plan: Setting, precision: str, batch: int) -> Figure:
    """Two plots: the step by layer, and the bytes sent by batch size."""
    from matplotlib.figure import Figure

    (one,) = plan.floors([precision], [batch])
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
    left.set_title(f"a step of {plural(batch, 'image')} in {precision} on {plan.names}", fontsize=10)
    left.legend(frameon=False)
    for axes in rest:
        size = PRECISIONS[precision]
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
        axes.set_title(f"sent in {precision}", fontsize=10)
        axes.legend(frameon=False)
    return figure
