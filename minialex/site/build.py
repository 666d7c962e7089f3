"""Builds the site: the generated pages, then mkdocs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from minialex.cli.server import source_tree
from minialex.errors import ConfigurationError, ResourceError
from minialex.site import dark, diagrams, katex, listings, pages, widgets
from minialex.storage.atomic import replace_folder, try_lock


def _root() -> Path:
    """The source tree.

    Raises:
        ConfigurationError: Outside of one.
    """
    root = source_tree()
    if root is None:
        raise ConfigurationError("the site is made in minialex's source tree: clone it, and pip install -e '.[docs]'")
    return root


def make() -> Iterator[str]:
    """Write ``docs/made``; yield a text on each thing done.

    Raises:
        ConfigurationError: Outside a source tree, or if mkdocs or nbconvert is missing.
        ResourceError: If the recorded GPU results cannot be made into a page.
    """
    root = _root()
    if find_spec("mkdocs") is None:
        raise ConfigurationError("mkdocs is not installed: pip install 'minialex[docs]'")
    made = root / "docs" / "made"
    yield f"{len(pages.write(made))} files of generated pages in {made}"
    _measured(root, "device_page.py", made / "device")
    yield "what was measured on GPUs"
    _measured(root, "ranks_page.py", made / "ranks")
    yield "what was measured of several processes"
    yield f"{len(dark.write(made))} pictures for dark pages"
    yield f"{len(diagrams.write(made / 'diagrams'))} diagrams"
    yield f"{len(listings.write(made / 'code', sorted((root / 'docs').rglob('*.md'))))} listings"
    yield f"{len(widgets.write(made / 'live'))} files of the live parts"
    yield "KaTeX" if katex.fetch(made / "katex") else "no KaTeX (npm and its registry are needed): formulas stay TeX"


def _measured(root: Path, program: str, folder: Path) -> None:
    """Write the page that a benchmark program makes from recorded results (GPUs, several processes).

    Raises:
        ResourceError: If it fails; the message has its output.
    """
    command = [sys.executable, str(root / "benchmarks" / program), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise ResourceError(f"benchmarks/{program} could not write {folder}: {' '.join(last)}")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Wait until no other process builds from this source tree, since all write the same generated pages."""
    with (root / "docs" / ".building").open("a") as file:
        while try_lock(file.fileno()) is False:
            time.sleep(0.2)
        yield


def build(out: Path) -> None:
    """Build the whole site into a folder, which is replaced only by a complete one.

    Raises:
        ConfigurationError: Outside a source tree, or if mkdocs is missing.
        ResourceError: If mkdocs fails; the message has its output.
    """
    root = _root()
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".tmp-site-", dir=out.absolute().parent))
    try:
        command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(work / "site")]
        environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
        with _alone(root):
            list(make())
            done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ResourceError(f"mkdocs could not build the site: {' '.join(last)}")
        replace_folder(work / "site", out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
