"""``minialex look occlusion``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import ImageFile, LabelOption, PictureOption, Run
from minialex.cli.options import BatchOption, DataOption, Machine


def occlusion(
    run: Run,
    image: ImageFile = None,
    label: LabelOption = None,
    size: Annotated[
        int | None, typer.Option(help="side of the covering square in pixels; default a seventh of the crop")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="pixels from one square to the next; default half its side")
    ] = None,
    picture: PictureOption = Path("occlusion.png"),
    data: DataOption = None,
    *,
    machine: Machine,
    batch_size: BatchOption = 100,
) -> None:
    """Show which parts of an image an answer depends on, by covering one square after another."""
    import numpy as np

    from minialex.cli.look.subject import open_run, save
    from minialex.figures import look as figures
    from minialex.look import sensitivity
    from minialex.screen.terminal import console, counting

    screen = console()
    subject = open_run(run, machine, data)
    watched = subject.label(label)
    squares = sensitivity.occlusion_squares(subject.session, size, stride)
    images = subject.images([image] if image else [], 1)
    with counting(screen, "covering", squares, "squares") as progress:
        result = sensitivity.occlusion(
            subject.session, images.pixels[0], label=watched, size=size, stride=stride, batch_size=batch_size,
            progress=progress,
        )  # fmt: skip
    i, j = np.unravel_index(int(result.probabilities.argmin()), result.probabilities.shape)
    top, left = int(result.offsets[i]), int(result.offsets[j])
    changed = (result.answers != result.label).mean()
    screen.print(
        f"{subject.name(result.label)}: {result.whole:.2%} for {images.source}; least "
        f"{result.probabilities.min():.2%}, with rows {top} to {top + result.size - 1} and columns {left} to "
        f"{left + result.size - 1} of {subject.recipe.crop} covered; under {changed:.1%} of {squares} squares of "
        f"{result.size} × {result.size} another class is the most probable"
    )
    save(screen, figures.occlusion(subject.crop(images.pixels)[0], result, subject.class_names), picture)
