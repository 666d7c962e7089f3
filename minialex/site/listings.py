"""Source code that pages show: extracted from the library, never pasted.

A page includes ``docs/made/code/minialex_numpy.relu.relu.py`` and gets the text of that function, class or constant;
``python -m minialex.site.listings FOLDER PAGE…`` writes what pages ask for.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from minialex.course.sources import source
from minialex.storage.atomic import write_text

_ASKED = re.compile(r"docs/made/code/([\w.]+)\.py")


def asked(pages: Iterable[Path]) -> list[str]:
    """The names whose source pages include."""
    return sorted({name for page in pages for name in _ASKED.findall(page.read_text(encoding="utf-8"))})


def write(folder: Path, pages: Iterable[Path]) -> list[Path]:
    """Write the listings that pages ask for into a folder, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name in asked(pages):
        path = folder / f"{name}.py"
        write_text(path, source(name))
        files.append(path)
    return files


if __name__ == "__main__":
    write(Path(sys.argv[1]), map(Path, sys.argv[2:]))
