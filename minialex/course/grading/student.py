"""The rules for students, compared with those of the conformance kit for authors of backends.

A textbook solution is right: `dy * (y > 0)` for the gradient of ReLU, a float64 accumulator that a student forgot to
round, −log of a probability. So a student's operation is called with finite numbers, whole batches and labels in range,
its results may have another numeric dtype than the protocol asks for, and they may be as far away as the notebooks'
checks allow (`TOLERANCE`). Infinities, not-a-number, empty batches, the last bits, and the same bits a second time are
for authors of backends: ``minialex grade --strict``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.backend.program import flatten
from minialex.backend.protocol import Backend
from minialex.backend.rules import RULES
from minialex.conformance.bounds import Expected, expected
from minialex.conformance.case import Case, compute, listed
from minialex.conformance.checks import at, perform
from minialex.conformance.compare import check_value
from minialex.course import TOLERANCE

LEAST = 1e-19
"""The least probability of which a student's logarithm must be right; float32 holds no smaller square."""


def check_student(backend: Backend, case: Case) -> None:
    """Replaces the kit's `check_case`: checks only the calls that are asked of students.

    Raises:
        Disagreement: If the operation raises, writes into its arguments, or gives something else than the reference.
    """
    if not asked(case):
        return
    device = backend.devices[0]
    results = [result for result in perform(backend, case, device) if result is not None]
    for result, wanted in zip(results, expected(case, backend), strict=True):
        if wanted.name != "loss" or probable(case):
            check_value(case, at(case, device), result, widened(case, wanted))


def asked(case: Case) -> bool:
    """Whether a textbook solution is right for a call, so that it may be asked."""
    arrays = listed(case.arrays.values())
    if any(not array.size or not np.isfinite(array).all() for array in arrays):
        return False
    if case.operation == "softmax_cross_entropy":
        labels = case.arrays["labels"]
        return bool(labels.min() >= 0 and labels.max() < case.arrays["logits"].shape[1])
    if case.operation == "sgd_update":
        return not any(np.any(count) for count in compute(case)[:1])  # an element would not be finite
    return True


def probable(case: Case) -> bool:
    """Whether the labels' probabilities are such that −log of them, rounded as they are, is the loss."""
    labels = case.arrays["labels"]
    _, probs = compute(case.wide)
    assert probs is not None
    return bool(probs[np.arange(len(labels)), labels].min() > LEAST)


def widened(case: Case, wanted: Expected) -> Expected:
    """A result that may be as far away as the notebooks' checks allow; what has no roundings stays exact."""
    if wanted.value.dtype.kind != "f" or not wanted.value.size:
        return wanted
    sizes = np.abs(wanted.value)
    least = 1.0 if case.operation == "tanh" else 0.0  # 2·sigmoid(2x) − 1 is tanh, and loses what is small
    most = TOLERANCE * float(np.max(sizes, where=np.isfinite(sizes), initial=least))
    return replace(wanted, bound=np.where(wanted.bound > 0, np.maximum(wanted.bound, most), 0.0))


def lenient(name: str, function: Callable[..., Any], remark: Callable[[str], None]) -> Callable[..., Any]:
    """A student's function on NumPy arrays whose results have the protocol's kinds wherever their numbers allow it.

    Args:
        name: of the operation
        function: the student's
        remark: told what was overlooked, in words
    """

    @functools.wraps(function)
    def adapted(*arrays: Any, **numbers: Any) -> Any:
        specs = RULES[name](*arrays, **numbers)
        made = function(*arrays, **numbers)
        several = isinstance(specs, tuple)
        if made is None or (several and not isinstance(made, tuple | list)):
            return made
        parts, wanted = (list(made) if several else [made]), flatten(specs)
        if len(parts) != len(wanted):
            return made
        for index, (part, spec) in enumerate(zip(parts, wanted, strict=True)):
            if spec is None:  # not asked for: need_dx=False
                parts[index] = None
                continue
            array = np.asarray(part)
            if array.dtype == spec.dtype or array.dtype.kind not in "fiub":
                parts[index] = part
                continue
            cast = array.astype(spec.dtype)
            if spec.dtype.kind == "f" or np.array_equal(cast, array):
                remark(f"a result of dtype {array.dtype} was taken as {spec.dtype}, the dtype of the arguments")
                parts[index] = cast
        return tuple(parts) if several else parts[0]

    return adapted
