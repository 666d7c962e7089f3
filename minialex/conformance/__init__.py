"""The conformance kit: does a backend do what the protocol says, and are its numbers right?

For the author of a backend, one command::

    pytest --pyargs minialex.conformance --backend NAME

where NAME is an installed backend's name, or ``package.module:Class`` for a class that no package announces yet. It
needs ``pip install minialex[conformance]`` (pytest and Hypothesis). ``--conformance-profile deep`` looks harder.

Hypothesis draws shapes, strides, paddings and values; every operation runs on the backend and, on the same numbers
in float64, on the NumPy reference; the results may differ by what `minialex.conformance.bounds` derives, and no
more. A backend may declare, as attributes of its class or instance:

``dtypes``
    the floating dtypes that it takes; default ``("float32", "float64")``
``unit_roundoff``
    by operation, the unit roundoff of its float32 form where that is larger than 2⁻²⁴, e.g.
    ``{"conv2d": 2**-19}`` for a convolution of Winograd's. It widens the bounds, and every report says so.
``operand_formats``
    by operation, ``"tf32"`` or ``"bfloat16"``, where matrix units round float32 operands to that format and add in
    float32: the bounds widen by two roundings a product, not by one for every term

``storage_formats``
    by operation, the format in which compiled steps keep its results, where that is coarser: one more rounding there

Your own operations are checked in the same way, and their gradients against finite differences, with
``--operations mine.py`` (or a module) that registers them; your own layers by
`minialex.conformance.own.check_layer`. From a program: `run`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from minialex.backend.protocol import Backend


@dataclass(frozen=True)
class Result:
    """The outcome of one check.

    Attributes:
        operation: name of the protocol's method, or ``"signatures"``
        passed: whether nothing wrong was found
        message: otherwise what is wrong, with the smallest failing example; a larger unit roundoff that the backend
            declares for the operation is reported in any case
    """

    operation: str
    passed: bool
    message: str


def run(backend: Backend, operations: Iterable[str] | None = None, profile: str = "ci") -> list[Result]:
    """Check a backend.

    Args:
        backend: the backend
        operations: names of methods of the protocol, or of registered operations; None for all of the protocol's
        profile: ``"ci"`` (the same moderate number of examples every time) or ``"deep"``

    Returns:
        One result for each name, in the order asked for.

    Raises:
        ConfigurationError: If a name or the profile is unknown.
    """
    from minialex.conformance.bounds import declared, operands
    from minialex.conformance.checks import CHECKS, PROFILES
    from minialex.conformance.own import check_of
    from minialex.errors import ConfigurationError, nearest

    names = list(CHECKS) if operations is None else list(operations)
    checks = [check_of(name) for name in names]
    if profile not in PROFILES:
        raise ConfigurationError(
            f"no profile '{profile}'; there are {', '.join(PROFILES)}.{nearest(profile, PROFILES)}"
        )
    results = []
    for name, check in zip(names, checks, strict=True):
        wider, coarser = declared(backend).get(name), operands(backend).get(name)
        remarks = [f"within the unit roundoff {wider:.3g} that the backend declares"] if wider else []
        remarks += [f"with operands rounded to {coarser}, as the backend declares"] if coarser else []
        remark = ", ".join(remarks)
        try:
            check(backend, PROFILES[profile])
            results.append(Result(name, True, remark))
        except Exception as error:  # a backend may raise anything; the caller wants to see all operations
            text = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
            results.append(Result(name, False, f"{text} ({remark})" if remark else text))
    return results
