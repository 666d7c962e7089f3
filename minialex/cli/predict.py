"""``minialex predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import Machine, Network, PrecisionOption, check_writable
from minialex.errors import ConfigurationError

SHOWN = 24  # images of the picture


def predict(
    run: Network,
    images: Annotated[list[Path], typer.Argument(help="image files")],
    views: Annotated[int, typer.Option(help="number of views averaged, 1 or 10")] = 1,
    picture: Annotated[
        Path | None, typer.Option(help="also draw them as this .png file, like the paper's figure 4")
    ] = None,
    *,
    machine: Machine,
    precision: PrecisionOption = None,
) -> None:
    """Print the five most probable classes of each image; --picture draws them too."""
    from minialex.api.net import check_views, load
    from minialex.screen.terminal import console

    check_views(views)
    check_writable(picture, "--picture", ".png")
    if picture is not None and picture.resolve() in [image.resolve() for image in images]:
        raise ConfigurationError(f"--picture {picture} is one of the images: name another file to draw into")
    screen = console()
    net = load(run, backend=machine.backend, devices=machine.devices, threads=machine.threads, precision=precision)
    pixels = net.pixels(list(images))
    probs = net.probabilities(pixels, views=views)
    for image, row in zip(images, probs, strict=True):
        screen.print(f"{image}", style="bold")
        for name, probability in net.ranking(row):
            screen.print(f"  {probability:7.2%}  {name}")
    if picture is None:
        return
    from minialex.figures import pictures

    pictures.save(pictures.predictions(pixels[:SHOWN], probs[:SHOWN], net.class_names, None), picture)
    rest = f" (the first {SHOWN} images)" if len(images) > SHOWN else ""
    screen.print(f"picture: {picture}{rest}")
