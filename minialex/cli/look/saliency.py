"""``minialex look saliency``."""

from __future__ import annotations

from pathlib import Path

from minialex.cli.look.arguments import ImageFile, LabelOption, PictureOption, Run
from minialex.cli.options import DataOption, Machine


def saliency(
    run: Run,
    image: ImageFile = None,
    label: LabelOption = None,
    picture: PictureOption = Path("saliency.png"),
    data: DataOption = None,
    *,
    machine: Machine,
) -> None:
    """Show which pixels a class's logit depends on: its gradient with respect to the image, in one backward pass."""
    from minialex.cli.look.subject import open_run, save
    from minialex.figures import look as figures
    from minialex.look import gradients
    from minialex.screen.terminal import console

    screen = console()
    subject = open_run(run, machine, data)
    watched = subject.label(label)
    images = subject.images([image] if image else [], 1)
    result = gradients.saliency(subject.session, images.pixels[0], watched)
    said = f"{subject.name(result.label)}: {result.probability:.2%} for {images.source}; "
    if result.map.any():
        screen.print(f"{said}half of the gradient's magnitude is in {result.half():.1%} of the pixels")
    else:
        screen.print(
            f"{said}the gradient is 0 everywhere: no pixel changes the logit, because every path to it is zero"
        )
    save(screen, figures.saliency(subject.crop(images.pixels)[0], result, subject.class_names), picture)
