"""Arguments and options shared by the commands of ``minialex look``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import check_writable

Run = Annotated[Path, typer.Argument(help="a run folder or checkpoint")]
ImageFile = Annotated[Path | None, typer.Argument(help="an image file; default one of the run's validation images")]
ImageFiles = Annotated[
    list[Path] | None, typer.Argument(help="image files; default some of the run's validation images")
]
LabelOption = Annotated[str | None, typer.Option("--label", help="the class to look at; default the most probable one")]


def _can_be_written(path: Path) -> Path:
    check_writable(path, "--picture", ".png")  # before anything is computed
    return path


PictureOption = Annotated[Path, typer.Option("--picture", help="file to save the picture in", callback=_can_be_written)]
