"""``pytest -p pretend_plugin``: tests of devices on pretend ones, large tests made small.

Ends with what CuPy and Numba asked of the driver, and fails if a rule was broken.
"""

from __future__ import annotations

import pytest
from pretend_devices import DRIVER

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
