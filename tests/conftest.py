"""`pytest --backend NAME` restricts what the conformance kit's tests run on; and a disk that is soon full.

Where the environment has ``MINIALEX_SKIPPED``, a file, the ids of tests that are skipped are appended to it: CI runs
those again where nothing is missing.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest_plugins = ["minialex.conformance.plugin"]


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that is skipped as a whole, as it is imported."""
    _write_down(report)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test that is skipped."""
    _write_down(report)


def _write_down(report: pytest.CollectReport | pytest.TestReport) -> None:
    path = os.environ.get("MINIALEX_SKIPPED")
    if path and report.skipped and not hasattr(report, "wasxfail"):
        with open(path, "a", encoding="utf-8") as file:  # several processes may, each a line at a time
            file.write(f"{report.nodeid}\n")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a disk of one megabyte, a tmpfs; skips where one may not be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m,nr_inodes=64", "tmpfs", folder], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a tmpfs cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", os.fspath(folder)], check=True)
