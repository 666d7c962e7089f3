"""Make the executed notebooks ``NN_name.ipynb`` from their sources ``NN_name.py``, or run them all within a time limit.

A source is a jupytext script in the percent format. It is run from top to bottom in a kernel of this interpreter, in an
empty folder, and written without what changes from run to run: ids, time stamps, versions. Needs the extra
``notebooks``.

A picture's alternative text is at the head of its cell: ``# %% alt="Two curves …"``. It is written to the metadata of
the cell and of its picture, where IPython keeps it, too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minialex.errors import ConfigurationError, MinialexError, nearest
from minialex.storage import atomic

if TYPE_CHECKING:
    from minialex.course.notebooks import show

SECONDS = 120.0  # that one notebook may take on two cores
SECONDS_TOGETHER = 600.0  # that all of them may take
BYTES = 500_000  # that an executed notebook may have
KEPT = ("alt", "tags")  # of a cell's metadata


class NotebookError(MinialexError):
    """A notebook fails, takes too long, warns, or is too large."""

    exit_code = 1


@dataclass(frozen=True)
class NotebookRun:
    """An executed notebook in its written form, and what it took.

    Attributes:
        text: text of the .ipynb file
        seconds: time from the kernel's start to its end
        processor_seconds: processor time of all threads of the kernel
    """

    text: str
    seconds: float
    processor_seconds: float


def sources(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The sources in a folder, in order; only those named (``03_relu``, or ``03``), if any are.

    Raises:
        ConfigurationError: If a name has no source.
    """
    found = sorted(folder.glob("[0-9][0-9]_*.py"))
    if not found:
        raise ConfigurationError(f"no notebook sources NN_name.py in {folder}")
    if not names:
        return found
    called = {name: path for path in found for name in (path.stem, path.stem.partition("_")[0])}
    for name in names:
        if name not in called:
            raise ConfigurationError(f"no notebook '{name}' in {folder}.{nearest(name, [p.stem for p in found])}")
    return [path for path in found if path in {called[name] for name in names}]


def cells_of_source(source: Path) -> list[dict[str, Any]]:
    """The cells of a source as a notebook file has them, without outputs; their ids are made of their content."""
    import jupytext

    notebook = jupytext.reads(source.read_text(encoding="utf-8"), fmt="py:percent")
    cells: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        content = f"{cell.cell_type}\n{cell.source}"
        seen[content] = seen.get(content, 0) + 1
        name = hashlib.sha256(f"{content}\n{seen[content]}".encode()).hexdigest()[:12]
        kept = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        cells.append({"cell_type": cell.cell_type, "id": name, "metadata": kept, "source": cell.source})
    return cells


def cells_of_notebook(path: Path) -> list[dict[str, Any]]:
    """The cells of a written notebook in the form of `cells_of_source`."""
    kept = ("cell_type", "id", "metadata", "source")
    return [
        {name: "".join(cell[name]) if name == "source" else cell[name] for name in kept}
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]
    ]


def run(source: Path, seconds: float = SECONDS) -> NotebookRun:
    """Run a source from top to bottom.

    Raises:
        NotebookError: If a cell raises or writes to standard error, it takes longer than `seconds`, or the result is
            too large.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    fresh: dict[str, Any] = {"outputs": [], "execution_count": None}
    cells = [{**cell, **(fresh if cell["cell_type"] == "code" else {})} for cell in cells_of_source(source)]
    notebook = nbformat.from_dict({**_ABOUT, "cells": cells})
    began, used = time.perf_counter(), _children_seconds()
    with tempfile.TemporaryDirectory() as empty, _environment(source.parent, Path(empty)):
        client = NotebookClient(
            notebook,
            timeout=max(1, round(seconds)),
            km=_kernel(),
            resources={"metadata": {"path": empty}},
            record_timing=False,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],  # it listens only on this machine
        )
        try:
            asyncio.run(client.async_execute(cleanup_kc=True))
        except CellExecutionError as error:
            traceback = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # without its colours
            raise NotebookError(f"{source.name}: a cell raises {error.ename}: {error.evalue}\n{traceback}") from None
        except (CellTimeoutError, DeadKernelError, RuntimeError) as error:
            first = str(error).strip().splitlines()[0]
            raise NotebookError(f"{source.name}: {first} (limit {seconds:g} s)") from None
    took = time.perf_counter() - began
    text = written(notebook, source.name)
    if took > seconds:
        raise NotebookError(f"{source.name} takes {took:.0f} s, more than {seconds:g} s")
    return NotebookRun(text, took, _children_seconds() - used)


def written(notebook: Any, name: str) -> str:
    """An executed notebook as the text of its file, without what changes from run to run.

    Raises:
        NotebookError: If a cell has written to standard error, a picture is without words, or the file is too large.
    """
    cells = []
    for cell in notebook.cells:
        kept = {"cell_type": cell.cell_type, "id": cell.id, "metadata": dict(cell.metadata)}
        kept["metadata"].pop("execution", None)
        if cell.cell_type == "code":
            kept["execution_count"] = cell.execution_count
            kept["outputs"] = [_output(output, cell, name) for output in cell.outputs]
        kept["source"] = cell.source.splitlines(keepends=True)
        cells.append(kept)
    text = json.dumps({**_ABOUT, "cells": cells}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if len(text.encode()) > BYTES:
        raise NotebookError(
            f"{name}: {len(text.encode()):,} bytes when executed, more than {BYTES:,}: use fewer pictures"
        )
    return text


def build(folder: Path, names: Sequence[str] = (), seconds: float = SECONDS) -> Iterator[tuple[Path, NotebookRun]]:
    """Run sources and write each one's notebook beside it, giving (notebook, what it took) one by one."""
    for source in sources(folder, names):
        ran = run(source, seconds)
        target = source.with_suffix(".ipynb")
        atomic.write_text(target, ran.text)
        yield target, ran


def reword(folder: Path, names: Sequence[str] = ()) -> Iterator[Path]:
    """Take over into written notebooks what needs no run: text, words for pictures, shown sources, recorded studies.

    Raises:
        NotebookError: If a notebook is missing, or its code is not that of its source.
    """
    import nbformat

    from minialex.course.notebooks import show

    for source in sources(folder, names):
        target = source.with_suffix(".ipynb")
        before = json.loads(target.read_text(encoding="utf-8"))["cells"] if target.is_file() else []
        now = cells_of_source(source)
        old, new = ([cell for cell in cells if cell["cell_type"] == "code"] for cells in (before, now))
        if ["".join(cell["source"]) for cell in old] != [cell["source"] for cell in new]:
            raise NotebookError(f"{source.name}: the code of {target.name} is different: build it")
        for cell, ran in zip(new, old, strict=True):
            cell |= {"outputs": ran["outputs"], "execution_count": ran["execution_count"]}
            for output in cell["outputs"]:
                output.get("metadata", {}).pop("image/png", None)
            for place, output in enumerate(cell["outputs"]):
                made_of = output.get("metadata", {}).get("minialex", {})
                if "source" in made_of:
                    output["data"] = _shown(show.source(*made_of["source"]))["data"]
                if "ablation" in made_of:
                    parts = [_shown(part) for part in show.ablation_parts(made_of["ablation"])]
                    cell["outputs"] = cell["outputs"][:place] + parts
                    break
        text = written(nbformat.reads(json.dumps({**_ABOUT, "cells": now}), 4), source.name)
        if text != target.read_text(encoding="utf-8"):
            atomic.write_text(target, text)
            yield target


def _shown(part: show.Text | show.Picture) -> dict[str, Any]:
    """A part of a recorded study as the output that a run of its cell would display."""
    data, metadata = part._repr_mimebundle_()
    return {"output_type": "display_data", "data": data, "metadata": metadata}


def stale(folder: Path) -> list[str]:
    """Which executed notebooks of a folder do not match their sources, each in a few words."""
    faults = []
    for source in sources(folder):
        target = source.with_suffix(".ipynb")
        if not target.is_file():
            faults.append(f"{target.name} is missing")
        elif cells_of_notebook(target) != cells_of_source(source):
            faults.append(f"{target.name} does not match {source.name}")
    without = {path.stem for path in folder.glob("*.ipynb")} - {path.stem for path in sources(folder)}
    return faults + [f"{name}.ipynb has no source" for name in sorted(without)]


_ABOUT: dict[str, Any] = {
    "metadata": {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    },
    "nbformat": 4,
    "nbformat_minor": 5,
}


def _output(output: Any, cell: Any, name: str) -> dict[str, Any]:
    """An output in written form: text as lines, no plain-text fallback beside richer output, pictures with alt text."""
    if output.output_type == "stream":
        if output.name == "stderr":
            raise NotebookError(f"{name}: a cell writes to standard error: {output.text.strip()[:400]}")
        return {"name": output.name, "output_type": "stream", "text": output.text.splitlines(keepends=True)}
    rich = [kind for kind in output.data if kind != "text/plain"]
    data = {kind: output.data[kind] for kind in rich or output.data}
    kept = {
        "data": {k: v.rstrip("\n") if k == "image/png" else v.splitlines(keepends=True) for k, v in data.items()},
        "metadata": {k: v for k, v in output.metadata.items() if k == "minialex"},
        "output_type": output.output_type,
    }
    alt = output.metadata.get("image/png", {}).get("alt")
    if "image/png" in data and not (alt := alt or cell.metadata.get("alt")):
        first = cell.source.strip().splitlines()[0]
        raise NotebookError(
            f'{name}: a picture without words: begin its cell ({first} …) with # %% alt="what it shows"'
        )
    if alt:
        kept["metadata"]["image/png"] = {"alt": alt}
    if output.output_type == "execute_result":
        kept["execution_count"] = output.execution_count
    return kept


def _kernel() -> Any:
    """A kernel of this interpreter, whatever kernels Jupyter knows."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    manager = AsyncKernelManager()
    manager._kernel_spec = KernelSpec(resource_dir="", **get_kernel_dict())
    return manager


@contextmanager
def _environment(folder: Path, empty: Path) -> Iterator[None]:
    """Keep the user's own IPython and matplotlib settings out; find the developers' photographs."""
    before = dict(os.environ)
    os.environ.update(IPYTHONDIR=str(empty / ".ipython"), MPLBACKEND="module://matplotlib_inline.backend_inline")
    os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")
    photographs = os.environ.get("MINIALEX_TEST_DATA") or folder.resolve().parents[1] / "shared" / "data"
    if "MINIALEX_DATA" not in os.environ and Path(photographs).is_dir():
        os.environ["MINIALEX_DATA"] = str(photographs)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _children_seconds() -> float:
    """Processor seconds of the processes that were started here and have ended."""
    times = os.times()
    return times.children_user + times.children_system
