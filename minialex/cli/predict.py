"""The command ``minialex predict``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from minialex.api.net import check_views, load
from minialex.cli.commands import console

SHOWN = 24  # images of the picture


def predict(
    path: Path,
    images: Sequence[Path],
    views: int,
    picture: Path,
    backend: str | None,
    devices: str | None,
    threads: int | None,
    precision: str | None,
) -> int:
    """The most probable classes of image files."""
    check_views(views)
    from minialex.figures import pictures

    screen = console()
    net = load(path, backend=backend, devices=devices, threads=threads, precision=precision)
    pixels = net.pixels(list(images))
    probs = net.probabilities(pixels, views=views)
    for image, row in zip(images, probs, strict=True):
        screen.print(f"{image}", highlight=False, style="bold", markup=False)
        for name, probability in net.ranking(row):
            screen.print(f"  {probability:7.2%}  {name}", highlight=False, markup=False)
    pictures.save(pictures.predictions(pixels[:SHOWN], probs[:SHOWN], net.class_names, None), picture)
    rest = f" (the first {SHOWN} images)" if len(images) > SHOWN else ""
    screen.print(f"picture: {picture}{rest}", highlight=False, markup=False)
    return 0
