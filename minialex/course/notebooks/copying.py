"""``minialex notebooks``: lists the course's notebooks, or copies them to a folder to work in."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from minialex.course import notebooks
from minialex.errors import ConfigurationError, DataError, nearest
from minialex.screen.formats import shell
from minialex.screen.terminal import console
from minialex.storage import atomic


def title(path: Path) -> str:
    """The first heading of a notebook.

    Raises:
        DataError: If the file is not a notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        lines = "".join(cells[0]["source"]).splitlines()
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(f"{path} is not a notebook ({type(error).__name__}: {error})") from None
    return next((line.removeprefix("# ") for line in lines if line.startswith("# ")), path.stem)


def list_titles() -> None:
    """Print every notebook's name and subject, and how to get them."""
    screen = console()
    for path in notebooks.paths():
        screen.print(f"{path.stem:<22} {title(path)}")
    screen.print()
    screen.print("To work with them: minialex notebooks FOLDER")


def copy(folder: Path, overwrite: bool, form: str = "", solutions: bool = False) -> None:
    """Copy the notebooks into a folder. Files there that differ are kept and reported, unless `overwrite`.

    Args:
        folder: the target; nbgrader's notebooks get a folder each in it, as in nbgrader's ``source``
        overwrite: whether files there that differ are replaced
        form: one of `minialex.course.notebooks.assign.FORMATS`; empty for the executed notebooks
        solutions: whether to include the answers and, without a format, what to expect of the open exercises

    Raises:
        ConfigurationError, ResourceError: If there is no such format, or the folder cannot be created or written to.
    """
    from minialex.course.notebooks import assign

    if form and form not in assign.FORMATS:
        raise ConfigurationError(
            f"no format '{form}'; there are {', '.join(assign.FORMATS)}.{nearest(form, assign.FORMATS)}"
        )
    screen = console()
    atomic.make_folder(folder)
    new, same, kept = [], [], []
    for path in notebooks.paths():
        content = assign.assignment(path, form, solutions).encode() if form or solutions else path.read_bytes()
        target = (folder / path.stem if form == "nbgrader" else folder) / path.name
        atomic.make_folder(target.parent)
        if target.exists() and target.is_file() and target.read_bytes() == content:
            same.append(path.name)
        elif (target.exists() or target.is_symlink()) and not overwrite:
            kept.append(path.name)
        else:
            atomic.write_bytes(target, content)
            new.append(path.name)
    if new:
        screen.print(f"copied to {folder}: {', '.join(new)}")
    if same:
        screen.print(f"there already: {', '.join(same)}")
    if kept:
        screen.print(f"kept yours, which differ (--overwrite replaces them): {', '.join(kept)}")
    if form:
        commands = {
            "nbgrader": "nbgrader generate_assignment 03_relu",
            "otter": shell("otter", "assign", folder / "03_relu.ipynb", "dist"),
        }
        screen.print(f"{'the answers are in them. ' if solutions else ''}Go on with, say: {commands[form]}")
        return
    if solutions:
        screen.print("the answers are in them: the teacher's copy")
    if find_spec("jupyterlab") is None:
        screen.print('JupyterLab is not installed here: pip install "minialex[notebooks]"')
    screen.print(f"open them with: {shell('jupyter', 'lab', folder)}")
