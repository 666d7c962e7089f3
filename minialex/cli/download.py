"""``minialex download``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def download(
    name: Annotated[str, typer.Argument(help="cifar10 or fashion-mnist")],
    folder: Annotated[Path | None, typer.Option(help="where to put it; default ~/.cache/minialex")] = None,
) -> None:
    """Download a data set from its official address and check it."""
    from minialex.data.download import fetch
    from minialex.screen.terminal import console

    console().print(str(fetch(name, folder)))
