"""``minialex notebooks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def notebooks(
    folder: Annotated[Path | None, typer.Argument(help="where to copy them; without it, they are listed")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that differ")] = False,
) -> None:
    """The course: copy its notebooks into a folder, to run and to change there. Files that differ are kept."""
    from minialex.course.notebooks import copying

    if folder is None:
        copying.list_titles()
    else:
        copying.copy(folder, overwrite)
