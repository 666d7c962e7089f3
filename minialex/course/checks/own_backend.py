"""Checks of notebook 14: the reader's own operations, compared with the reference by the conformance kit."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import NotAnswered, NotYet, exercise, refuse_placeholder


def _conforms(operation: str, answer: Any, *arguments: Any, **named: Any) -> None:
    """Compare a function with the reference; the kit's message is the hint. It is first called once with the arguments.

    Raises:
        NotAnswered: If it returns a placeholder.
        NotYet: With what is wrong and the smallest call that shows it.
    """
    try:
        from hypothesis import settings

        from minialex.conformance.checks import PROFILES, check_operation
        from minialex.conformance.compare import Disagreement
    except ImportError:
        raise NotYet('this check needs Hypothesis: pip install "minialex[conformance]".') from None
    from minialex.course.grading import complete
    from minialex.course.grading.student import check_student, lenient

    if not callable(answer):
        raise NotYet(f"it should be a function, and yours is of type {type(answer).__name__}.")
    if _is_placeholder(answer, *arguments, **named):
        raise NotAnswered
    try:
        backend = complete({operation: lenient(operation, answer, lambda remark: None)})
    except ValueError as error:  # other parameters than the protocol's
        raise NotYet(str(error)) from None
    try:
        profile = settings(PROFILES["ci"], max_examples=40)
        check_operation(backend, operation, profile, check_case=check_student)
    except Disagreement as error:
        raise NotYet(str(error)) from None


def _is_placeholder(answer: Any, *arguments: Any, **named: Any) -> bool:
    """Whether a function is still a placeholder."""
    try:
        refuse_placeholder(answer(*arguments, **named))
    except (NotAnswered, NotImplementedError):
        return True
    except Exception:  # the kit explains better what is wrong, and where
        return False
    return False


@exercise
def repaired_norm(answer: Any) -> str:
    """Local response normalisation without the bug: (x, *, size, k, alpha, beta) -> (y, scale)."""
    _conforms("local_response_norm", answer, np.ones((1, 3, 1, 1)), size=3, k=1.0, alpha=1.0, beta=0.75)
    return "the kit finds nothing more: the window has all its channels, at the edges too."


@exercise
def tanh_gradient(answer: Any) -> str:
    """The gradient of tanh: (dy, y) -> dx."""
    _conforms("tanh_backward", answer, np.ones(2), np.zeros(2))
    return "from y alone: what the forward pass gave is enough."
