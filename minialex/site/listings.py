"""Source code that pages show: cut out of the library as it is, never pasted.

A page includes ``docs/made/code/minialex.models.alexnet.py`` and gets the text of that function or class;
``python -m minialex.site.listings FOLDER PAGE…`` writes what pages ask for.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from minialex.errors import ConfigurationError
from minialex.storage.atomic import write_text

_ASKED = re.compile(r"docs/made/code/([\w.]+)\.py")


def source(name: str) -> str:
    """The source of a function, class or method by its dotted name.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    module = name
    parts: list[str] = []
    while module:
        try:
            found = importlib.import_module(module)
            for part in parts:
                found = getattr(found, part)
            return textwrap.dedent(inspect.getsource(found))
        except (ImportError, AttributeError, TypeError):
            module, _, last = module.rpartition(".")
            parts.insert(0, last)
    raise ConfigurationError(f"a page asks for the source of '{name}', and there is nothing of that name")


def asked(pages: Iterable[Path]) -> list[str]:
    """Names whose source pages include."""
    return sorted({name for page in pages for name in _ASKED.findall(page.read_text(encoding="utf-8"))})


def write(folder: Path, pages: Iterable[Path]) -> list[Path]:
    """Write the listings that pages ask for into a folder, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in asked(pages):
        path = folder / f"{name}.py"
        write_text(path, source(name))
        files.append(path)
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]), map(Path, sys.argv[2:]))
