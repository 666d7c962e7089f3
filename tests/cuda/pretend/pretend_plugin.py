"""Once this is imported CuPy and Numba CUDA find two pretend devices; with ``pytest -p`` large tests are made small.

Pytest then ends with what CuPy and Numba asked of the driver, and fails if a rule was broken.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pretend_cublas
import pretend_driver
import pytest

DRIVER = pretend_driver.Driver(seed=int(os.environ.get("PRETEND_SEED", "0")))
FOLDER = tempfile.TemporaryDirectory()
pretend_driver.install(DRIVER, Path(FOLDER.name))
pretend_cublas.install(DRIVER, Path(FOLDER.name))

FEW = {"REPLAYS": 4, "REPEATS": 3, "MANY": 12, "WARM": 6}
"""Numbers of `tests/gpu/test_device.py` that are smaller here."""


@pytest.hookimpl
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for module in {getattr(item, "module", None) for item in items}:
        for name, number in FEW.items():
            if hasattr(module, name):
                setattr(module, name, number)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if DRIVER.broken and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(
        f"asked of the driver: {sum(DRIVER.calls.values()):,} calls of {len(DRIVER.calls)} kinds"
    )
    terminalreporter.write_line(
        f"launched: {sum(DRIVER.launched.values()):,} kernels, {len(DRIVER.launched)} different"
    )
    for rule in dict.fromkeys(DRIVER.broken):
        terminalreporter.write_line(f"BROKEN: {rule}")
