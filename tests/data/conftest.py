"""Where the tests of real data find it, and places that hold nothing."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: MINIALEX_TEST_DATA or ../shared/data beside the repository."""
    named = os.environ.get("MINIALEX_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set MINIALEX_TEST_DATA")
    return folder


@pytest.fixture
def nowhere(monkeypatch, tmp_path) -> Path:
    """An empty working folder and home, so that the usual places hold no data set."""
    from minialex.data.sets import fashion_mnist

    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.delenv("MINIALEX_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN", str(empty / "debian"))
    return empty
