"""The kit's tests: the protocol's operations, or registered ones, on every backend (see `minialex.conformance`)."""

from __future__ import annotations

import pytest
from hypothesis import settings

from minialex.backend.protocol import Backend
from minialex.conformance.compare import Disagreement
from minialex.conformance.own import check_of


def test_agrees_with_the_reference(backend: Backend, operation: str, profile: settings) -> None:
    try:
        check_of(operation)(backend, profile)
    except Disagreement as error:  # its message says all; the kit's own frames would bury it
        pytest.fail(str(error), pytrace=False)
