"""Source code that pages show: cut out of the library as it is, never pasted.

A page includes ``docs/made/code/minialex_numpy.relu.relu.py`` and gets the text of that function, class or constant;
``python -m minialex.site.listings FOLDER PAGE…`` writes what pages ask for.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from pkgutil import resolve_name

from minialex.errors import ConfigurationError
from minialex.storage.atomic import write_text

_ASKED = re.compile(r"docs/made/code/([\w.]+)\.py")


def source(name: str) -> str:
    """The source of a function, class, method or constant by its dotted name.

    Raises:
        ConfigurationError: If there is none of that name.
    """
    try:
        found = resolve_name(name)
    except (ImportError, AttributeError):
        raise ConfigurationError(f"a page asks for the source of '{name}', and there is nothing of that name") from None
    if callable(found) and hasattr(found, "__qualname__"):
        return textwrap.dedent(inspect.getsource(found))
    module, _, constant = name.rpartition(".")
    text = inspect.getsource(resolve_name(module))
    for node in ast.parse(text).body:
        targets = getattr(node, "targets", [getattr(node, "target", None)])
        if any(isinstance(target, ast.Name) and target.id == constant for target in targets):
            return f"{ast.get_source_segment(text, node)}\n"
    raise ConfigurationError(f"a page asks for the source of '{name}', which is neither defined nor a constant")


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
