"""The conformance kit on every backend that is installed and can run here (``--backend NAME`` restricts them)."""

from minialex.conformance.test_conformance import test_agrees_with_the_reference  # noqa: F401 - pytest runs it from here
