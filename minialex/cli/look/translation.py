"""``minialex look translation``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import ImageFiles, LabelOption, PictureOption, Run
from minialex.cli.options import BatchOption, DataOption, Machine


def translation(
    run: Run,
    images: ImageFiles = None,
    label: LabelOption = None,
    count: Annotated[
        int, typer.Option("--images", min=1, help="number of validation images to use if no files are given")
    ] = 100,
    reach: Annotated[float, typer.Option(help="largest shift, as a fraction of the crop's side")] = 0.5,
    steps: Annotated[int, typer.Option(help="number of shifts along each axis, odd")] = 9,
    scale: Annotated[float, typer.Option(help="shrink the content to this fraction of its side first")] = 1.0,
    picture: PictureOption = Path("translation.png"),
    data: DataOption = None,
    *,
    machine: Machine,
    batch_size: BatchOption = 100,
) -> None:
    """Shift images to test whether the class of an off-centre object stays in the top five (figure 4)."""
    import numpy as np

    from minialex.cli.look.subject import open_run, save
    from minialex.figures import look as figures
    from minialex.look import sensitivity
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console, counting

    screen = console()
    subject = open_run(run, machine, data)
    watched = subject.label(label)
    shown = subject.images(images or [], count)
    pixels = shown.pixels
    labels = shown.labels if watched is None else np.full(len(pixels), watched, np.int64)
    with counting(screen, "moving", len(pixels) * steps**2) as progress:
        result = sensitivity.translation(
            subject.session, pixels, labels, reach=reach, steps=steps, scale=scale, batch_size=batch_size,
            progress=progress,
        )  # fmt: skip
    whose = "their own class" if labels is not None else "the class most probable before"
    if watched is not None:
        whose = subject.name(watched)
    screen.print(f"{shown.source}; watched: {whose}" + (f"; shrunk to {scale:g} of their side" if scale < 1 else ""))
    rows = []
    distance = np.maximum.outer(np.abs(result.shifts), np.abs(result.shifts))
    for shift in np.unique(np.abs(result.shifts)):
        ring = distance == shift
        share = (result.ranks[:, ring] < 5).mean(axis=1)
        interval = f"{1.96 * share.std(ddof=1) / np.sqrt(len(share)):.1%}" if len(share) > 1 else ""
        mean = result.probabilities[:, ring].mean()
        rows.append([f"{shift}", f"{shift / subject.recipe.crop:.0%}", f"{mean:.1%}", f"{share.mean():.1%}", interval])
    header = ("shift, pixels", "of the crop", "probability", "in the top 5", "± (95 %)")
    screen.print(Sheet("", header, rows, "r").rich(frame=False))
    screen.print(
        "a row: all shifts whose larger part, down or sideways, is that many pixels; the interval is over the images"
    )
    ground, content = sensitivity.blank(subject.session), sensitivity.shrunk(pixels[0], scale)
    ends = (int(result.shifts[0]), 0, int(result.shifts[-1]))
    samples = [subject.crop(sensitivity.paste(content, ground, down, right)) for down in ends for right in ends]
    save(screen, figures.translation(samples, result, subject.class_names), picture)
