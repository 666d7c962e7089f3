"""The course in the reader's browser: ``python -m minialex.site.lite [OUT]`` builds a JupyterLite with its notebooks.

minialex is included as a pure Python wheel; NumPy, matplotlib and Pillow come from Pyodide. Cells that a browser cannot
run (tagged ``not-in-browser``: they need Numba, or train for minutes), and those that need their results, become text:
their code, and their output when the notebook was built. Needs the extra ``lite``.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from minialex.course import notebooks
from minialex.errors import ConfigurationError, MinialexError, ResourceError
from minialex.screen.formats import readable_size
from minialex.site import widgets
from minialex.storage import atomic

TAG = "not-in-browser"
LEFT_OUT = ("14_your_own_backend",)
"""Notebooks about what a browser lacks: other processes."""

REQUIRES = ("numpy", "matplotlib", "pillow")
KERNEL = "@jupyterlite/pyodide-kernel-extension:kernel"
LINKS = Path("made") / "live" / "lite.js"
"""In a built site, the script that shows the links to the notebooks; it is empty if they were not built."""

_WELCOME = (
    "**In your browser.** Run the next cell first: it fetches Python's packages, some megabytes. Everything is "
    "computed by this page, and what you change stays in this browser. The images are the library's drawn shapes; what "
    "would take minutes here is shown as it was recorded."
)
_RECORDED = "*On a computer only ({why}). This is what it gave when the notebook was made:*"
_ALONE = "*On a computer only ({why}).*"


def names() -> list[str]:
    """The notebooks that a browser gets, in order."""
    return [path.stem for path in notebooks.paths() if path.stem not in LEFT_OUT]


def edition(path: Path) -> dict[str, Any]:
    """A notebook for the browser: a cell that installs, no outputs, and text in place of what cannot run there."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells: list[dict[str, Any]] = []
    missing: set[str] = set()
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        kept = {"cell_type": cell["cell_type"], "id": cell["id"], "metadata": cell["metadata"], "source": source}
        if cell["cell_type"] == "code":
            bound, needed = _names(source)
            absent = ", ".join(f"`{name}`" for name in sorted(needed & missing))
            heavy = TAG in cell["metadata"].get("tags", ())
            if heavy or absent:
                missing |= bound
                why = "it needs Numba, or trains for minutes" if heavy else f"it needs {absent} of a cell above"
                kept = _as_text(cell, source, why)
            else:
                missing -= bound
                kept |= {"outputs": [], "execution_count": None}
        cells.append(kept)
    first = [
        {"cell_type": "markdown", "id": "in-your-browser", "metadata": {}, "source": _WELCOME},
        {"cell_type": "code", "id": "install-it", "metadata": {}, "source": "%pip install -q minialex",
         "outputs": [], "execution_count": None},
    ]  # fmt: skip
    kernel = {"kernelspec": {"display_name": "Python (Pyodide)", "language": "python", "name": "python"}}
    return {**notebook, "metadata": {**notebook["metadata"], **kernel}, "cells": [*cells[:1], *first, *cells[1:]]}


def _as_text(cell: Mapping[str, Any], source: str, why: str) -> dict[str, Any]:
    """A code cell as Markdown: why it does not run, its code, its output."""
    parts, pictures = [], {}
    for number, output in enumerate(cell["outputs"]):
        data = output.get("data", {})
        if "image/png" in data:
            pictures[f"{number}.png"] = {"image/png": data["image/png"].replace("\n", "")}
            parts.append(f"![{output['metadata']['image/png']['alt']}](attachment:{number}.png)")
        elif "text/markdown" in data:
            parts.append("".join(data["text/markdown"]))
        else:
            parts.append(f"```text\n{''.join(output.get('text') or data['text/plain']).rstrip()}\n```")
    said = [(_RECORDED if parts else _ALONE).format(why=why), f"```python\n{source}\n```", *parts]
    text = {"cell_type": "markdown", "id": cell["id"], "metadata": {}, "source": "\n\n".join(said)}
    return {**text, "attachments": pictures} if pictures else text


def _names(source: str) -> tuple[set[str], set[str]]:
    """The names that a cell defines for later cells, and those that it needs from earlier ones."""
    tree = ast.parse(source)
    bound, inner = set(_bound(tree.body)), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            inner.add(node.arg)
        elif isinstance(node, ast.FunctionDef):
            inner.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            inner.add(node.id)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return bound, read - bound - inner - set(dir(builtins))


def _bound(body: Iterable[ast.AST]) -> Iterator[str]:
    """Names bound by statements, not inside functions, classes and comprehensions."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif not isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
            yield from _bound(ast.iter_child_nodes(node))


def installed_wheel(name: str) -> tuple[str, bytes]:
    """An installed pure Python package repacked as a wheel: its file name and its bytes.

    Raises:
        ConfigurationError: If it is not installed.
    """
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise ConfigurationError(f"{name} is not installed: pip install 'minialex[lite]'") from None
    content = {
        str(file): Path(str(found.locate_file(file))).read_bytes()
        for file in found.files or ()
        if file.suffix != ".pyc" and file.name not in ("RECORD", "INSTALLER", "REQUESTED") and ".." not in file.parts
    }
    info = next(file.partition("/")[0] for file in content if file.endswith(".dist-info/METADATA"))
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: minialex\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    return f"{name}-{found.version}-py3-none-any.whl", widgets.pack(content, info)


def build(out: Path, pyodide: str = "") -> None:
    """Build the JupyterLite into a folder; beside a built site, its page of notebooks gets links.

    Args:
        out: the folder, replaced only by a complete build
        pyodide: where the page gets Pyodide from: an address, or a folder with a full distribution of 0.27, which is
            copied; if empty, MINIALEX_PYODIDE, else the public address

    Raises:
        ConfigurationError: If JupyterLite is not installed, or the folder has no Pyodide.
        ResourceError: If JupyterLite fails; the message has its output.
    """
    for package in ("jupyterlite_core", "jupyterlite_pyodide_kernel", "jupyter_server"):
        if find_spec(package) is None:
            raise ConfigurationError(f"{package} is not installed: pip install 'minialex[lite]'")
    pyodide = pyodide or os.environ.get("MINIALEX_PYODIDE") or widgets.PYODIDE
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "content").mkdir()
        for path in notebooks.paths():
            if path.stem in names():
                atomic.write_text(work / "content" / path.name, json.dumps(edition(path), ensure_ascii=False))
        wheels = [(widgets.WHEEL, widgets.wheel(without=("site",), requires=REQUIRES)), installed_wheel("comm")]
        for name, data in wheels:
            atomic.write_bytes(work / name, data)
        atomic.write_json(work / "jupyter-lite.json", _settings(pyodide, work))
        command = [
            sys.executable, "-m", "jupyterlite_core", "build", "--lite-dir", ".", "--contents", "content",
            "--output-dir", "built", "--no-sourcemaps", "--no-unused-shared-packages",
            "--apps", "lab", "--apps", "notebooks",
            *(word for name, _ in wheels for word in ("--piplite-wheels", name)),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            raise ResourceError(f"JupyterLite could not be built: {' '.join(last)}")
        with atomic.translate_os_errors(out):
            out = out.absolute()
            out.parent.mkdir(parents=True, exist_ok=True)
            with atomic.new_folder(out) as fresh:
                shutil.copytree(work / "built", fresh, dirs_exist_ok=True)
                atomic.replace_folder(fresh, out)
    links = out.absolute().parent / LINKS
    if links.is_file():
        atomic.write_text(links, script(out.name))


def _settings(pyodide: str, work: Path) -> dict[str, Any]:
    config: dict[str, Any] = {"appName": "minialex"}
    if "://" in pyodide:
        config["litePluginSettings"] = {KERNEL: {"pyodideUrl": f"{pyodide.rstrip('/')}/pyodide.js"}}
    else:
        absent = [name for name in ("pyodide.js", "pyodide-lock.json") if not (Path(pyodide) / name).is_file()]
        if absent:
            lacks = ", ".join(absent)
            raise ConfigurationError(f"{pyodide}: no Pyodide there (no {lacks}): give an address or its folder")
        shutil.copytree(pyodide, work / "static" / "pyodide")
    return {"jupyter-lite-schema-version": 0, "jupyter-config-data": config}


def script(folder: str) -> str:
    """The script of the page of notebooks that shows links into the JupyterLite in a folder beside it."""
    return f"""// the notebooks are beside this site: links to them
document.querySelectorAll("[data-lite]").forEach((place) => {{
  const link = document.createElement("a");
  link.textContent = "open";
  link.setAttribute("aria-label", "open " + place.closest("tr").querySelector("a").textContent);
  link.href = "../{folder}/notebooks/index.html?path=" + place.dataset.lite + ".ipynb";
  place.replaceChildren(link);
}});
document.querySelectorAll("[data-without-lite]").forEach((note) => note.remove());
"""


def main(
    out: Annotated[Path, typer.Argument(help="the folder to make; beside a built site, its page gets links")] = Path(
        "site/lite"
    ),
    pyodide: Annotated[str, typer.Option(help="address of Pyodide 0.27, or a folder that has all of it")] = "",
) -> None:
    """Build the course's notebooks for the browser."""
    build(out, pyodide)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {len(names())} notebooks, {readable_size(size)}")


if __name__ == "__main__":
    try:
        typer.run(main)
    except MinialexError as error:
        sys.exit(f"error: {error}")
