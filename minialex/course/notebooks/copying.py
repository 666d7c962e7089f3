"""``minialex notebooks``: the course's notebooks, listed, or copied to where they can be worked on."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from minialex.course import notebooks
from minialex.errors import DataError
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
    """Print every notebook's name and what it is about, and how to get them."""
    screen = console()
    for path in notebooks.paths():
        screen.print(f"{path.stem:<22} {title(path)}")
    screen.print()
    screen.print("To work with them: minialex notebooks FOLDER")


def copy(folder: Path, overwrite: bool) -> None:
    """Copy the notebooks into a folder. A file there that differs is kept, and named, unless `overwrite`.

    Raises:
        ConfigurationError, ResourceError: If the folder cannot be made or written.
    """
    screen = console()
    atomic.make_folder(folder)
    new, same, kept = [], [], []
    for path in notebooks.paths():
        target, content = folder / path.name, path.read_bytes()
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
    if find_spec("jupyterlab") is None:
        screen.print('JupyterLab is not installed here: pip install "minialex[notebooks]"')
    screen.print(f"open them with: {shell('jupyter', 'lab', folder)}")
