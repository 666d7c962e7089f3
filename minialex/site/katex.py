"""KaTeX for the pages' formulas: fetched from the npm registry once and served by the site itself."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from minialex.storage.atomic import write_bytes

VERSION = "0.16.22"
WANTED = ("katex.min.js", "katex.min.css", "fonts/")


def fetch(folder: Path) -> bool:
    """Put KaTeX's script, style and fonts into a folder; return whether that succeeded (it needs npm and a registry).

    Pages are readable without it, too: formulas then stay TeX.
    """
    if (folder / "katex.min.js").is_file():
        return True
    if shutil.which("npm") is None:
        return False
    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run(
            ["npm", "pack", "--silent", f"katex@{VERSION}"], cwd=work, capture_output=True, text=True, check=False
        )
        packs = list(Path(work).glob("*.tgz"))
        if done.returncode or not packs:
            return False
        with tarfile.open(packs[0]) as archive:
            for member in archive:
                name = member.name.removeprefix("package/dist/")
                old = name.endswith((".ttf", ".woff"))  # every current browser supports woff2
                file = archive.extractfile(member) if name != member.name and name.startswith(WANTED) else None
                if file is not None and not old:
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    write_bytes(folder / name, file.read())
    return (folder / "katex.min.js").is_file()
