"""The kit's tests: every name of the protocol on every backend asked for (see `minialex.conformance`)."""

from __future__ import annotations

import pytest
from hypothesis import settings

from minialex.backend.protocol import Backend
from minialex.conformance.checks import CHECKS
from minialex.conformance.compare import Disagreement


@pytest.mark.parametrize("operation", CHECKS)
def test_agrees_with_the_reference(backend: Backend, operation: str, profile: settings) -> None:
    try:
        CHECKS[operation](backend, profile)
    except Disagreement as error:  # its message says all; the kit's own frames would bury it
        pytest.fail(str(error), pytrace=False)
