"""The pytest side of the kit: the option ``--backend``, and tests that run on every backend asked for.

It is loaded by ``-p minialex.conformance.plugin``, by the kit's own ``conftest.py``, or by naming it in the
``pytest_plugins`` of another. A test that takes the fixture ``backend`` runs once on each: on those named, or on all
that are installed. One that is named and cannot be loaded ends the run; of the others, one that cannot run here is
skipped with its reason, and one that breaks the protocol fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

from minialex.backend import registry
from minialex.backend.imports import load_module
from minialex.backend.operations import OPERATIONS
from minialex.backend.protocol import Backend
from minialex.conformance.bounds import declared, operands
from minialex.conformance.checks import CHECKS, PROFILES
from minialex.errors import BackendUnavailable, MinialexError

_named = pytest.StashKey[dict[str, Backend]]()
_checked = pytest.StashKey[Iterable[Any]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the kit's two options."""
    group = parser.getgroup("minialex conformance")
    group.addoption(
        "--backend",
        action="append",
        metavar="NAME",
        help="backend to check: an installed name or package.module:Class; may be repeated (default: all installed)",
    )
    group.addoption(
        "--operations",
        action="append",
        metavar="MODULE",
        help="check the operations that this module or file.py registers with examples, instead of the protocol's",
    )
    group.addoption(
        "--conformance-profile",
        choices=tuple(PROFILES),
        default="ci",
        help="ci: the same moderate number of examples every time; deep: many new ones (default: ci)",
    )


def checked(config: pytest.Config) -> list[str]:
    """The operations to check: the protocol's, or those that ``--operations`` registered."""
    before = set(OPERATIONS)
    for place in config.getoption("--operations", None) or ():
        load_module("operations", place)
    own = sorted(name for name in OPERATIONS if OPERATIONS[name].examples and name not in before)
    return own or list(CHECKS)


def pytest_configure(config: pytest.Config) -> None:
    """Load the named backends, or end the run."""
    try:
        config.stash[_named] = {name: registry.load(name) for name in config.getoption("--backend", None) or ()}
        config.stash[_checked] = checked(config)
    except MinialexError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Report what is checked, and which bounds are widened."""
    named = config.stash[_named]
    lines = [f"backends: {', '.join(named or registry.installed())}"]
    for name, backend in named.items():
        lines.append(f"backend {name}: devices {', '.join(backend.devices)}")
        lines += [
            f"backend {name}: {operation} within the unit roundoff {u:.3g} that it declares"
            for operation, u in declared(backend).items()
        ]
        lines += [
            f"backend {name}: {operation} with operands rounded to {coarser}, as it declares"
            for operation, coarser in operands(backend).items()
        ]
    return lines


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise tests by backend, and the kit's own tests by operation."""
    if metafunc.function.__module__.endswith("minialex.conformance.test_conformance"):
        metafunc.parametrize("operation", metafunc.config.stash[_checked])
    if "backend" in metafunc.fixturenames:
        names = list(metafunc.config.stash[_named] or registry.installed())
        metafunc.parametrize("backend", names, indirect=True, scope="session")


@pytest.fixture(scope="session")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend to check."""
    named = request.config.stash[_named]
    if request.param in named:
        return named[request.param]
    try:
        return registry.load(request.param)
    except BackendUnavailable as error:
        if not follows_protocol(request.param):
            raise
        pytest.skip(str(error))


def follows_protocol(name: str) -> bool:
    """Whether an installed backend that does not load is correct but unable to run here."""
    try:
        return not registry.protocol_faults(registry.installed()[name].load())
    except Exception:  # its imports are missing here
        return True


@pytest.fixture(scope="session")
def profile(request: pytest.FixtureRequest) -> settings:
    """How thoroughly to check."""
    return PROFILES[request.config.getoption("--conformance-profile", "ci")]
