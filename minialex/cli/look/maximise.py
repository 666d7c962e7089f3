"""``minialex look maximise``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import PictureOption, Run
from minialex.cli.look.excite import unit_numbers
from minialex.cli.options import Machine


def maximise(
    run: Run,
    layer: Annotated[str, typer.Option(help="name of a layer; see `minialex summary`")] = "conv5",
    units: Annotated[
        str | None, typer.Option(help="numbers of the layer's channels or neurons: 3,17; default 4 per column")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="steps of gradient ascent")] = 100,
    picture: PictureOption = Path("maximise.png"),
    *,
    machine: Machine,
) -> None:
    """Make images that excite a layer's units as much as possible, by gradient ascent from noise."""
    from minialex.cli.look.subject import open_run, save
    from minialex.figures import look as figures
    from minialex.look import gradients
    from minialex.look.units import receptive_field, units_of
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console, counting

    screen = console()
    subject = open_run(run, machine)
    width, columns = units_of(subject.session, layer), subject.columns(layer)
    chosen = unit_numbers(units, width, columns)
    with counting(screen, "climbing", steps, "steps") as progress:
        result = gradients.maximise(subject.session, layer, chosen, steps=steps, progress=progress)
    names = [subject.name(unit) if layer == subject.session.network.layers[-1].name else "" for unit in result.units]
    rows = [
        (str(unit), str(unit * columns // width + 1), f"{before:.4g}", f"{after:.4g}", name)
        for unit, before, after, name in zip(result.units, result.before, result.after, names, strict=True)
    ]
    header = ("unit", "column", "before", "after", "class")
    last = any(names)
    screen.print(
        Sheet("", header[: 4 + last], [row[: 4 + last] for row in rows], "rrrrl"[: 4 + last]).rich(frame=False)
    )
    field = receptive_field(subject.session.network, layer)
    save(screen, figures.maximised(result, field, columns, width, names), picture)
