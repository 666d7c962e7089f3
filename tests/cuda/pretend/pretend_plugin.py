"""``pytest -p pretend_plugin``: tests of devices on pretend ones, large tests made small.

Ends with what CuPy and Numba asked of the driver, and fails if a rule was broken.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from pretend_devices import DRIVER

from minialex.conformance import checks, steps

FEW = {
    "PAPER": str(Path(__file__).with_name("tiny.toml")),
    "REPLAYS": 3,
    "REPEATS": 2,
    "LEARNED": 2,
    "MANY": 8,
    "WARM": 4,
}
"""What is smaller here of `tests/gpu/test_device.py`."""

EXAMPLES = 25
"""Of each operation of the kit: its bounds are looked at elsewhere, here how devices are asked."""

steps.STEPS = 2  # the second is captured
checks.PROFILES["ci"] = settings(checks.PROFILES["ci"], max_examples=EXAMPLES)


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
    say = terminalreporter.write_line
    say(f"asked of the driver: {sum(DRIVER.calls.values()):,} calls of {len(DRIVER.calls)} kinds")
    say(f"launched: {sum(DRIVER.launched.values()):,} kernels: {', '.join(sorted(DRIVER.launched))}")
    for rule in dict.fromkeys(DRIVER.broken):
        say(f"BROKEN: {rule}")
