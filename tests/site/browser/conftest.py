"""What the tests in a browser need: Chromium, node and the cache that ``fetch.py`` fills."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

FETCH = Path(__file__).with_name("fetch.py")


def _missing(said: list[str]) -> None:
    """Skip, and say how to get what is missing; fail where MINIALEX_REQUIRE_BROWSER is set."""
    if said and os.environ.get("MINIALEX_REQUIRE_BROWSER"):
        pytest.fail(f"no {', no '.join(said)}")
    if said:
        pytest.skip(f"no {', no '.join(said)}")


@pytest.fixture(scope="session")
def fetch() -> ModuleType:
    """The module ``fetch.py``, with node and a cache that is whole."""
    found = importlib.util.spec_from_file_location("browser_fetch", FETCH)
    assert found is not None
    assert found.loader is not None
    module = importlib.util.module_from_spec(found)
    sys.modules["browser_fetch"] = module  # dataclasses look it up
    found.loader.exec_module(module)
    lacks = module.missing(module.cache())
    said = [f"{', '.join(lacks)} in {module.cache()} ({module.COMMAND})"] if lacks else []
    _missing(said + ([] if shutil.which("node") else ["node (apt-get install nodejs)"]))
    return module


@pytest.fixture(scope="session")
def pyodide(fetch: ModuleType) -> Path:
    """A folder with Pyodide and NumPy's wheel."""
    folder: Path = fetch.cache() / fetch.PYODIDE.folder
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """The browser's program."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    _missing([] if found else ["chromium (apt-get install chromium)"])
    return str(found)
