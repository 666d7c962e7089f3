"""The rules for students, which are more lenient than the conformance kit's rules for authors of backends.

A textbook solution counts as right: `dy * (y > 0)` for the gradient of ReLU, a float64 accumulator that was not rounded
back, −log of a probability. So a student's operation is called with finite numbers, non-empty batches and labels in
range; its results may have another numeric dtype than the protocol requires, and may differ by as much as the
notebooks' checks allow (`TOLERANCE`). Infinities, NaN, empty batches, the last bits and reproducible bits are for
authors of backends: ``minialex grade --strict``.
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
"""The smallest probability whose logarithm must be right; float32 cannot represent a smaller square."""


def check_student(backend: Backend, case: Case) -> None:
    """Replaces the kit's `check_case`: checks only calls that students must support.

    Raises:
        Disagreement: If the operation raises, writes to its arguments, or differs from the reference.
    """
    if not asked(case):
        return
    device = backend.devices[0]
    results = [result for result in perform(backend, case, device) if result is not None]
    for result, wanted in zip(results, expected(case, backend), strict=True):
        if wanted.name != "loss" or probable(case):
            check_value(case, at(case, device), result, widened(case, wanted))


def asked(case: Case) -> bool:
    """Whether a textbook solution is right for a call, so that students must support it."""
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
    """Whether −log of the labels' rounded probabilities is accurate enough as the loss."""
    labels = case.arrays["labels"]
    _, probs = compute(case.wide)
    assert probs is not None
    return bool(probs[np.arange(len(labels)), labels].min() > LEAST)


def widened(case: Case, wanted: Expected) -> Expected:
    """Widen a bound to what the notebooks' checks allow; results without rounding stay exact."""
    if wanted.value.dtype.kind != "f" or not wanted.value.size:
        return wanted
    sizes = np.abs(wanted.value)
    least = 1.0 if case.operation == "tanh" else 0.0  # 2·sigmoid(2x) − 1 is tanh, but loses small numbers
    most = TOLERANCE * float(np.max(sizes, where=np.isfinite(sizes), initial=least))
    return replace(wanted, bound=np.where(wanted.bound > 0, np.maximum(wanted.bound, most), 0.0))


def lenient(name: str, function: Callable[..., Any], remark: Callable[[str], None]) -> Callable[..., Any]:
    """Wrap a student's function on NumPy arrays so that its results get the protocol's dtypes if their values allow.

    Args:
        name: name of the operation
        function: the student's function
        remark: called with a text on what was tolerated
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
            if spec is None:  # not requested: need_dx=False
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
