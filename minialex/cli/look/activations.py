"""``minialex look activations``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import ImageFile, PictureOption, Run
from minialex.cli.options import DataOption, Machine


def activations(
    run: Run,
    image: ImageFile = None,
    layer: Annotated[str, typer.Option(help="name of a layer; see `minialex summary`")] = "conv1",
    picture: PictureOption = Path("activations.png"),
    data: DataOption = None,
    *,
    machine: Machine,
) -> None:
    """Show a layer's activations for an image: all its feature maps, or all its neurons."""
    import numpy as np

    from minialex.cli.look.subject import open_run, save
    from minialex.figures import look as figures
    from minialex.screen.terminal import console

    subject = open_run(run, machine, data)
    subject.session.network.layer(layer)
    images = subject.images([image] if image else [], 1)
    output = subject.session.activations(images.pixels, [layer])[layer][0]
    strongest = output.reshape(len(output), -1).max(axis=1)
    units = ", ".join(f"{unit} ({strongest[unit]:.4g})" for unit in np.argsort(-strongest, kind="stable")[:5])
    screen = console()
    screen.print(
        f"{layer} for {images.source}: {' × '.join(map(str, output.shape))}, {(output == 0).mean():.1%} of it zero, "
        f"mean {output.mean():.4g}, from {output.min():.4g} to {output.max():.4g}"
    )
    screen.print(f"strongest {'channels' if output.ndim == 3 else 'neurons'}: {units}")
    figure = figures.activations(subject.crop(images.pixels)[0], output, layer, subject.columns(layer))
    save(screen, figure, picture)
