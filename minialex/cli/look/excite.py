"""``minialex look excite``."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import PictureOption, Run
from minialex.cli.options import BatchOption, DataOption, Machine
from minialex.errors import ConfigurationError

UNITS = 4  # units per column that are shown if none are named


def excite(
    run: Run,
    layer: Annotated[str, typer.Option(help="name of a layer; see `minialex summary`")] = "conv5",
    units: Annotated[
        str | None, typer.Option(help="numbers of the layer's channels or neurons: 3,17; default 4 per column")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="images per unit")] = 9,
    split: Annotated[str, typer.Option(help="train or validation")] = "validation",
    picture: PictureOption = Path("excite.png"),
    data: DataOption = None,
    *,
    machine: Machine,
    batch_size: BatchOption = 100,
) -> None:
    """Find the images that excite a layer's units most, and show the part that each unit sees."""
    from minialex.cli.look.subject import open_run, save, split_of
    from minialex.figures import look as figures
    from minialex.look import units as exciting
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console, counting

    screen = console()
    subject = open_run(run, machine, data)
    width, columns = exciting.units_of(subject.session, layer), subject.columns(layer)
    chosen = unit_numbers(units, width, columns)
    images = split_of(subject.data(), split)
    with counting(screen, "looking", len(images)) as progress:
        result = exciting.excite(
            subject.session, images, layer, chosen, count=count, batch_size=batch_size, progress=progress
        )
    rows = []
    for unit, indices, values in zip(result.units, result.images, result.values, strict=True):
        classes = Counter(subject.name(label) for label in images.labels[indices]).most_common()
        names = ", ".join(f"{name} ×{n}" if n > 1 else name for name, n in classes)
        rows.append((str(unit), str(unit * columns // width + 1), f"{values[0]:.4g} … {values[-1]:.4g}", names))
    header = ("unit", "column", "activation", "classes of the images")
    screen.print(Sheet("", header, rows, "rrrl").rich(frame=False))
    crops = [list(subject.crop(images.read(indices))) for indices in result.images]
    field = exciting.receptive_field(subject.session.network, layer)
    save(screen, figures.excitation(crops, result, field, columns, width), picture)


def unit_numbers(text: str | None, width: int, columns: int) -> list[int]:
    """The numbers of the named units, or else some units of each column, spread evenly over it."""
    if text is None:
        share = width // columns
        some = {int(n * (share - 1) / (UNITS - 1)) for n in range(UNITS)}
        return [column * share + unit for column in range(columns) for unit in sorted(some)]
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--units takes numbers, such as 3,17; got '{text}'") from None
