"""The course for the browser: what an edition of a notebook keeps, and what JupyterLite makes of all of them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from minialex.course import notebooks
from minialex.errors import ConfigurationError
from minialex.site import lite, widgets

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "live" / "notebooks.md").read_text(encoding="utf-8")
PATHS = [path for path in notebooks.paths() if path.stem in lite.names()]


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [cell for cell in lite.edition(path)["cells"] if cell["cell_type"] == kind]


def test_the_page_has_every_notebook_and_its_title() -> None:
    rows = re.findall(
        r"^\| \[(.+?)\]\(../made/notebooks/(\w+)\.md\) \| <span data-lite=\"(\w+)\"></span> \|$", PAGE, re.M
    )
    assert [name for _, name, _ in rows] == [name for *_, name in rows] == lite.names()
    assert len(rows) + len(lite.LEFT_OUT) == len(notebooks.paths()) == 21
    for title, name, _ in rows:
        assert any(
            f"# {title}" == cell["source"].splitlines()[0] for cell in cells(PATHS[0].with_stem(name), "markdown")
        )


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_what_is_kept_has_all_that_it_needs(path: Path) -> None:
    """No cell needs a name that only a cell that became text would have given it."""
    install, *kept = cells(path)
    assert install["source"] == "%pip install -q minialex"
    known: set[str] = set()
    for cell in kept:
        bound, needed = lite._names(cell["source"])
        assert needed <= known, f"{sorted(needed - known)} in\n{cell['source']}"
        known |= bound
        assert cell["outputs"] == []
        assert lite.TAG not in cell["metadata"].get("tags", ())
        assert "experiment.train(" not in cell["source"], "trains for minutes: tag it"


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_exercise_and_its_check_are_kept(path: Path) -> None:
    sources = {cell["source"] for cell in cells(path)}
    whole = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for place, cell in enumerate(whole):
        if "exercise" in cell["metadata"].get("tags", ()):
            assert "".join(cell["source"]) in sources
            assert "".join(next(c for c in whole[place + 1 :] if c["cell_type"] == "code")["source"]) in sources


def test_what_a_browser_cannot_do_is_text_with_its_code_and_what_it_gave(tmp_path: Path) -> None:
    def cell(source: str, *outputs: dict, tags: tuple[str, ...] = ()) -> dict:
        return {
            "cell_type": "code",
            "id": hashlib.md5(source.encode()).hexdigest()[:8],
            "metadata": {"tags": list(tags)},
            "source": source.splitlines(keepends=True),
            "outputs": list(outputs),
            "execution_count": 1,
        }

    picture = {
        "data": {"image/png": "aGk="},
        "metadata": {"image/png": {"alt": "A bar."}},
        "output_type": "display_data",
    }
    printed = {"output_type": "stream", "name": "stdout", "text": ["3\n"]}
    made = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# One\n"]},
        cell("import numpy as np\nx = 1"),
        cell("runs = [np.ones(x)]\nfor run in runs:\n    print(3)", printed, picture, tags=("not-in-browser",)),
        cell("print(len(runs))"),
        cell("y = [run for run in (1, 2)]\nx + y[0]"),
        cell("runs = []"),
        cell("len(runs)"),
    ]
    path = tmp_path / "01_made.ipynb"
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf-8")
    found = lite.edition(path)["cells"]
    assert [c["cell_type"] for c in found] == ["markdown"] * 2 + ["code"] * 2 + ["markdown"] * 2 + ["code"] * 3
    heavy, dependent = found[4], found[5]
    assert heavy["source"].startswith("*On a computer only (it needs Numba, or trains for minutes).")
    assert "```python\nruns = [np.ones(x)]\nfor run in runs:\n    print(3)\n```" in heavy["source"]
    assert "```text\n3\n```" in heavy["source"]
    assert "![A bar.](attachment:1.png)" in heavy["source"]
    assert heavy["attachments"] == {"1.png": {"image/png": "aGk="}}
    assert "it needs `runs` of a cell above" in dependent["source"]


def test_the_wheel_has_what_notebooks_use() -> None:
    data = widgets.wheel(without=("site",), requires=lite.REQUIRES)
    assert data == widgets.wheel(without=("site",), requires=lite.REQUIRES)
    assert len(data) < 1_000_000
    archive = zipfile.ZipFile(io.BytesIO(data))
    names = set(archive.namelist())
    for part in (
        "course/notebooks/show.py",
        "course/checks/__init__.py",
        "studies/recorded/pooling.json",
        "studies/designs/relu.toml",
    ):
        assert f"minialex/{part}" in names
    site = {name for name in names if name.startswith("minialex/site/")}
    assert site == {"minialex/site/__init__.py", "minialex/site/live.py"}
    info = next(name for name in names if name.endswith("METADATA"))
    assert archive.read(info).decode().splitlines()[-3:] == [f"Requires-Dist: {name}" for name in lite.REQUIRES]


def test_an_installed_package_is_a_wheel_again() -> None:
    name, data = lite.installed_wheel("typer")
    assert re.fullmatch(r"typer-[\d.]+-py3-none-any\.whl", name)
    archive = zipfile.ZipFile(io.BytesIO(data))
    record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
    for line in archive.read(record).decode().splitlines():
        file, said, _ = line.rsplit(",", 2)
        if said:
            digest = base64.urlsafe_b64encode(hashlib.sha256(archive.read(file)).digest()).rstrip(b"=").decode()
            assert said == f"sha256={digest}"
    assert "typer/main.py" in archive.namelist()
    with pytest.raises(ConfigurationError, match=r"no-such-package is not installed: pip install 'minialex\[lite\]'"):
        lite.installed_wheel("no-such-package")


def test_without_jupyterlite_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'minialex\[lite\]'"):
        lite.build(tmp_path / "lite")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pyodide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no Pyodide there \(no pyodide.js, pyodide-lock.json\)"):
        lite._settings(str(tmp_path), tmp_path / "work")
    found = lite._settings("https://example.org/pyodide/", tmp_path)
    assert found["jupyter-config-data"]["litePluginSettings"] == {
        lite.KERNEL: {"pyodideUrl": "https://example.org/pyodide/pyodide.js"}
    }


@pytest.mark.skipif(
    not all(find_spec(name) for name in ("jupyterlite_core", "jupyterlite_pyodide_kernel", "jupyter_server")),
    reason="needs the extra lite",
)
def test_jupyterlite_is_built_beside_a_site(tmp_path: Path) -> None:
    links = tmp_path / "site" / lite.LINKS
    links.parent.mkdir(parents=True)
    links.write_text("//\n")
    out = tmp_path / "site" / "lite"
    out.mkdir()
    (out / "old").write_text("old")
    lite.build(out, "https://example.org/pyodide")
    assert not (out / "old").exists()
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == ["lite", "made"]
    assert sorted(path.stem for path in (out / "files").glob("*.ipynb")) == lite.names()
    assert (out / "notebooks" / "index.html").is_file()
    assert set(json.loads((out / "pypi" / "all.json").read_text())) == {"comm", "minialex"}
    config = json.loads((out / "jupyter-lite.json").read_text())["jupyter-config-data"]
    assert config["litePluginSettings"][lite.KERNEL]["pyodideUrl"] == "https://example.org/pyodide/pyodide.js"
    assert '"../lite/notebooks/index.html?path="' in links.read_text()


def test_the_wheel_of_the_live_parts_is_whole_and_needs_numpy_alone(tmp_path: Path) -> None:
    zipfile.ZipFile(io.BytesIO(widgets.wheel())).extractall(tmp_path)
    code = (
        "import sys; from minialex.site import live; "
        "print(live.__file__, live.pooling([float(i) for i in range(16)], 4, 4, 2, 2)['data'].tolist()); "
        "print(sorted({'rich', 'typer', 'safetensors', 'filelock', 'scipy', 'PIL', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    where = tmp_path / "minialex" / "site" / "live.py"
    assert done.stdout.splitlines() == [f"{where} [5.0, 7.0, 13.0, 15.0]", "[]"]
