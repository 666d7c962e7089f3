"""The statistics of few seeds: means, Student's intervals, paired differences, Holm's correction.

Exact for normal errors; with three to ten seeds normality cannot be checked, which is why every verdict comes with its
interval. Student's distribution is SciPy's, which is imported only when an interval is computed; recorded outcomes
include their intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minialex.errors import ConfigurationError

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        low, high: infinite if there is only one value
        count: number of values
        p: two-sided probability of a mean as far from 0 or farther, if the true one were 0
    """

    mean: float
    low: float
    high: float
    count: int
    p: float

    @property
    def includes_zero(self) -> bool:
        """Whether the values are consistent with a true mean of 0."""
        return self.low <= 0 <= self.high


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values with Student's interval.

    Raises:
        ValueError: If there is no value.
        ConfigurationError: If SciPy is not installed.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1, 1.0)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    if error == 0:
        return Estimate(mean, mean, mean, n, 1.0 if mean == 0 else 0.0)
    distribution = student(n - 1)
    half = float(distribution.ppf((1 + LEVEL) / 2)) * error
    return Estimate(mean, mean - half, mean + half, n, 2 * float(distribution.sf(abs(mean / error))))


def paired(arm: Sequence[float], base: Sequence[float]) -> Estimate:
    """The mean difference of values paired by seed (the paired t-test)."""
    return estimate([a - b for a, b in zip(arm, base, strict=True)])


def holm(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Each p, adjusted for all tests in the family (Holm 1979)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    ordered = sorted(probabilities, key=lambda name: probabilities[name])
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * probabilities[name]))
        adjusted[name] = largest
    return adjusted


def student(freedom: int) -> Any:
    """Student's distribution with `freedom` degrees of freedom.

    Raises:
        ConfigurationError: If SciPy is not installed.
    """
    try:
        from scipy import stats
    except ImportError:
        raise ConfigurationError("intervals of a study need SciPy: pip install 'minialex[studies]'") from None
    return stats.t(freedom)
