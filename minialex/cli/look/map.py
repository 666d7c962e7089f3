"""``minialex look map``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import PictureOption, Run
from minialex.cli.options import DataOption, Machine

BATCH = 100


def map_(
    run: Run,
    layer: Annotated[str | None, typer.Option(help="name of a layer; default the last hidden layer")] = None,
    count: Annotated[int, typer.Option(min=10, max=5000, help="validation images to show, spread over the set")] = 500,
    steps: Annotated[int, typer.Option(min=1, help="steps of the gradient descent that lays them out")] = 400,
    picture: PictureOption = Path("map.png"),
    data: DataOption = None,
    *,
    machine: Machine,
) -> None:
    """Draw a map of images: those that a layer finds similar are close together (t-SNE)."""
    import numpy as np

    from minialex.cli.look.subject import open_run, save
    from minialex.figures import look as figures
    from minialex.look import flat
    from minialex.look.neighbours import feature_layer
    from minialex.screen.terminal import console, counting

    screen = console()
    subject = open_run(run, machine, data)
    name = layer or feature_layer(subject.session.network)
    subject.session.network.layer(name)
    shown = subject.images([], count)
    pieces = [
        subject.session.activations(shown.pixels[begin : begin + BATCH], [name])[name]
        for begin in range(0, len(shown.pixels), BATCH)
    ]
    features = np.concatenate(pieces)
    with counting(screen, "laying out", steps, "steps") as progress:
        places = flat.flat_map(features, steps=steps, progress=progress)
    assert shown.labels is not None
    at, of = flat.same_class(places, shown.labels), flat.same_class(features, shown.labels)
    size = features[0].size
    screen.print(
        f"{shown.source}, by the {size:,} numbers of {name}: of the five nearest, {at:.0%} are of an image's own class "
        f"on the map, and {of:.0%} in all {size:,} numbers"
    )
    save(screen, figures.flat_map(list(shown.pixels), places, shown.labels, subject.class_names, name), picture)
