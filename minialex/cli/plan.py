"""``minialex plan``: for named or measured devices; the arithmetic is in `minialex.speed.plan`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minialex.cli.options import RecipeOption, check_writable, overrides, with_classes
from minialex.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from minialex.figures.plan import Setting
    from minialex.recipe.fields import Recipe
    from minialex.speed.rates import Rates


def plan(
    context: typer.Context,
    recipe: RecipeOption = "alexnet-2012",
    devices: Annotated[
        str | None,
        typer.Option("--devices", help="cpu, 0 or 0,1 (measured here, or --rates); known cards: h200,h200 or 8xh200"),
    ] = None,
    batch_size: Annotated[
        str | None, typer.Option("--batch-size", help="images in one step, over all devices; several: 128,256")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, tf32 or bfloat16; several, separated by commas")
    ] = None,
    rates: Annotated[Path | None, typer.Option(help="measured rates: a report from `minialex doctor`")] = None,
    link: Annotated[
        str | None,
        typer.Option(help="link between two devices: nvlink4, nvlink3, pcie5 … pcie2, or gigabytes per second"),
    ] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="number of machines, each with the devices of 8xh200")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="network ports of each machine: 100g, 400g (the default), 8x400g")
    ] = None,
    images: Annotated[int, typer.Option(min=1, help="training images in an epoch")] = 1_281_167,
    energy: Annotated[
        bool,
        typer.Option(
            "--energy", help="also give the energy of the whole training in kilowatt-hours, beside that of 2012"
        ),
    ] = False,
    watts: Annotated[
        float | None, typer.Option(min=1, help="watts per device, for --energy; default the manufacturer's figure")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="print everything as JSON")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="print the tables as Markdown")] = False,
    picture: Annotated[Path | None, typer.Option("--picture", help="draw the step as this .png file")] = None,
) -> None:
    """Compute the least time of a training step, what two columns exchange, and how long 90 epochs of ImageNet take.

    This is arithmetic on shapes and rates; nothing is trained. Any recipe field is also an option: --epochs 30
    --columns 1 …
    """
    from minialex.figures import pictures
    from minialex.figures import plan as figures
    from minialex.recipe.toml import load
    from minialex.screen.terminal import console, document
    from minialex.speed.rates import read

    base = load(recipe).replace(**overrides(context.args))
    check_writable(picture, "--picture", ".png")
    if json and markdown:
        raise ConfigurationError("give --json or --markdown, not both")
    measured = {} if rates is None else read(rates)
    several = re.fullmatch(r"([1-9]\d{0,3})x(\S+)", (devices or "").strip().lower())
    if watts is not None and not (energy or json):
        raise ConfigurationError("--watts is for the energy: also give --energy")
    if several is not None:
        if energy or watts:
            raise ConfigurationError(
                "--energy is for one or two devices: leave it out, or name them: --devices h200,h200"
            )
        if picture is not None:
            raise ConfigurationError("--picture draws one step on one or two devices: leave it out")
        where = int(several[1]), nodes or 1, link, network or "400g"
        texts = batch_size or str(base.batch_size)
        many(base, several[2], measured, where, precision, numbers(texts, "--batch-size"), images, (json, markdown))
        return
    if nodes is not None or network is not None:
        raise ConfigurationError("--nodes and --network need several devices per machine: --devices 8xh200")
    text = devices or next((name for name in measured if ":" in name), "cpu")
    if rates is None:
        measured = measure(text)
    subject = replace(setting(base, text, measured, link, images), watts=watts)
    if energy or watts:
        figures.needed_power(subject)  # say at once what is not known
    names = precisions(precision, subject.devices)
    batches = numbers(batch_size or str(base.batch_size), "--batch-size")
    tables, remarks = figures.tables(subject, names, batches), figures.remarks(subject, batches[-1])
    if energy:
        tables.append(figures.energy(subject, subject.floors(names, batches)))
        remarks += figures.energy_remarks(subject)
    if json:
        document(figures.as_json(subject, names, batches))
    elif markdown:
        document("\n".join(table.markdown() for table in tables))
        document("\n".join(f"{remark}\n" for remark in remarks))
    else:
        screen = console(least=100, fold=True)
        for table in tables:
            screen.print(table.rich())
        for remark in remarks:
            screen.print(remark)
    if picture is not None:
        pictures.save(figures.picture(subject, names[-1], batches[-1]), picture)


def many(
    recipe: Recipe,
    name: str,
    measured: dict[str, Rates],
    where: tuple[int, int, str | None, str],
    precision: str | None,
    batches: Sequence[int],
    images: int,
    form: tuple[bool, bool],
) -> None:
    """Print what a step takes on many devices.

    Args:
        name: of a device
        where: devices of a machine, machines, the link between devices, the machines' ports
        form: whether to print JSON, Markdown
    """
    from minialex.figures import scaling as figures
    from minialex.network import variants
    from minialex.screen.terminal import console, document
    from minialex.speed import rates
    from minialex.speed.scaling import Cluster, Subject, as_json, counts

    recipe = with_classes(recipe)
    _, (device,), _ = find_devices(name, measured)
    each, nodes, link, network = where
    inner = rates.link(link) if link else device.link
    if inner is None:
        raise ConfigurationError(f"the rate of the link to {device.name} is not known: give it with --link")
    cluster = Cluster(nodes, each, inner, rates.network(network))
    subjects = [Subject(variants.build(recipe), recipe.columns, device, p) for p in precisions(precision, [device])]
    if form[0]:
        steps = [
            {"precision": one.precision, **step}
            for one in subjects
            for batch in batches
            for devices in counts(cluster, batch)
            for step in as_json(one.ways(cluster, devices, batch))
        ]
        document(dumps({"label": figures.LABEL, "cluster": asdict(cluster), "steps": steps}, indent=2))
        return
    one = subjects[-1]
    tables = [figures.growing(one, cluster, batch, images, recipe.epochs) for batch in batches]
    tables.append(figures.ways(one, cluster, batches))
    if form[1]:
        document("\n".join(table.markdown() for table in tables))
        document("\n".join(f"{remark}\n" for remark in figures.remarks(one, cluster)))
        return
    screen = console(least=132, fold=True)
    for table in tables:
        for part in table.fitting(screen.width) if screen.is_terminal else [table]:
            screen.print(part.rich())
    for remark in figures.remarks(one, cluster):
        screen.print(remark)


def numbers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers of at least 1, separated by commas."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) >= 1 for part in parts):
        raise ConfigurationError(f"{option} takes whole numbers of at least 1 separated by commas, got '{text}'")
    return tuple(dict.fromkeys(int(part) for part in parts))


def precisions(text: str | None, devices: Sequence[Rates]) -> tuple[str, ...]:
    """Precisions by name, or all that every device has."""
    from minialex.speed.rates import PRECISIONS

    if text is None:
        return tuple(name for name in PRECISIONS if all(name in device.matrix for device in devices))
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in PRECISIONS:
            hint = nearest(name, PRECISIONS)
            raise ConfigurationError(f"no precision '{name}'; there are {', '.join(PRECISIONS)}.{hint}")
    return names


def find_devices(text: str, measured: dict[str, Rates]) -> tuple[tuple[str, ...], tuple[Rates, ...], tuple[int, ...]]:
    """Devices from the command line's text: labels, each device's rates once, and which of them each label is.

    A number, or ``backend:number``, is a device of this machine (or of the one that `measured` is from), ``cpu`` its
    processor (and so are the pretend devices ``cpu:0`` and ``cpu:1``); any other name is one of the table in
    `minialex.speed.rates`, and every mention of it is a card of its own.

    Raises:
        ConfigurationError: If one is not known, with the names that are.
    """
    from minialex.backend.pretend import DEVICES
    from minialex.speed.rates import KNOWN

    labels, rates, indices = [], [], []
    shared: dict[str, int] = {}  # devices of this machine, which may be named twice
    for part in (part.strip().lower() for part in text.split(",")):
        numbered = (name for name in measured if part.isdecimal() and name.partition(":")[2] == part)
        own = "cpu" if part in DEVICES else next(numbered, part)
        if own in KNOWN:
            rates.append(KNOWN[own])
            indices.append(len(rates) - 1)
        elif own in measured:
            if own not in shared:
                shared[own] = len(rates)
                rates.append(measured[own])
            indices.append(shared[own])
        else:
            names = [*KNOWN, *measured]
            hint = nearest(own, names)
            if own == "cpu" or own.isdecimal() or ":" in own:
                hint = " Make the report again on a machine that has it: minialex doctor --report FILE"
            raise ConfigurationError(f"no rates for device '{part}'; known are {', '.join(names)}.{hint}")
        labels.append(own)
    return tuple(labels), tuple(rates), tuple(indices)


def measure(text: str) -> dict[str, Rates]:
    """Rates of those devices of this machine that are named: its processor, its GPUs.

    Raises:
        ResourceError: If GPUs are named but there are none, or they cannot be measured.
    """
    from minialex.backend.pretend import DEVICES

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
    """What to plan, from the texts of the command line.

    Raises:
        ConfigurationError: If a device is unknown, or their number is neither one nor the network's number of columns.
    """
    from minialex.figures.plan import Setting
    from minialex.screen.formats import plural
    from minialex.speed import rates

    recipe = with_classes(recipe)
    labels, devices, placement = find_devices(text, measured)
    if len(placement) not in (1, recipe.columns):
        raise ConfigurationError(
            f"--devices names {plural(len(placement), 'device')} for {plural(recipe.columns, 'column')}; "
            f"give one or {recipe.columns}"
        )
    if len(placement) == 1:
        placement *= recipe.columns
    return Setting(recipe, labels, devices, placement, None if link is None else rates.link(link), images)
