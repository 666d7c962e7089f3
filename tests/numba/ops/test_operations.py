"""The Numba backend's operations against the reference, through the conformance kit."""

from __future__ import annotations

import pytest

from minialex.conformance import run
from minialex.conformance.checks import CHECKS
from minialex_numba import NumbaBackend


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    return NumbaBackend(threads=2)


@pytest.mark.parametrize("operation", list(CHECKS))
def test_operation_conforms(numba_backend: NumbaBackend, operation: str) -> None:
    (result,) = run(numba_backend, [operation])
    assert result.passed, result.message
