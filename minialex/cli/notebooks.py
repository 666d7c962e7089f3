"""``minialex notebooks``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.errors import ConfigurationError


def notebooks(
    folder: Annotated[
        Path | None, typer.Argument(help="folder to copy them to; without it they are only listed")
    ] = None,
    form: Annotated[str, typer.Option("--format", help="write them as assignments for nbgrader or otter")] = "",
    solutions: Annotated[bool, typer.Option("--solutions", help="include the answers: the teacher's copy")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace files that differ")] = False,
) -> None:
    """Copy the course's notebooks into a folder, to run and change there. Files that you have changed are kept."""
    from minialex.course.notebooks import copying

    if folder is None:
        if form or solutions:
            raise ConfigurationError("also say where to write them: minialex notebooks FOLDER …")
        copying.list_titles()
    else:
        copying.copy(folder, overwrite, form, solutions)
