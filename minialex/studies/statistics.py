"""The statistics of few seeds: means, Student's intervals, paired differences, Holm's correction.

Exact for normal errors; with three to ten seeds nobody can check that they are normal, which is why the intervals are
given beside every verdict. Student's distribution is computed from the regularised incomplete beta function (its
continued fraction, Abramowitz and Stegun 26.5.8), so that no further library is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        low, high: infinite where there is only one value
        count: values that it was made of
        p: two-sided probability of a mean as far from 0 or farther, if the true one were 0
    """

    mean: float
    low: float
    high: float
    count: int
    p: float

    @property
    def includes_zero(self) -> bool:
        """Whether a true mean of 0 agrees with the values."""
        return self.low <= 0 <= self.high


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of independent values with Student's interval.

    Raises:
        ValueError: If there is no value.
    """
    n = len(values)
    if n == 0:
        raise ValueError("no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, -math.inf, math.inf, 1, 1.0)
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = quantile(LEVEL, n - 1) * error
    if error == 0:
        return Estimate(mean, mean, mean, n, 1.0 if mean == 0 else 0.0)
    return Estimate(mean, mean - half, mean + half, n, two_sided(mean / error, n - 1))


def paired(arm: Sequence[float], base: Sequence[float]) -> Estimate:
    """The mean difference of values that belong together, seed by seed (the paired t-test)."""
    return estimate([a - b for a, b in zip(arm, base, strict=True)])


def normal(differences: Sequence[float]) -> Estimate:
    """As `estimate` for thousands of values, such as images."""
    return estimate(differences)


def holm(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Each p adjusted for all that were tested together (Holm 1979)."""
    adjusted: dict[str, float] = {}
    largest = 0.0
    ordered = sorted(probabilities, key=lambda name: probabilities[name])
    for rank, name in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * probabilities[name]))
        adjusted[name] = largest
    return adjusted


def two_sided(t: float, freedom: int) -> float:
    """Probability that Student's t is as far from 0 as `t`, or farther."""
    return _beta(freedom / 2, 0.5, freedom / (freedom + t * t))


def quantile(level: float, freedom: int) -> float:
    """The t within which Student's distribution has `level` of its mass, to 1e-9 (bisection)."""
    low, high = 0.0, 1.0
    while two_sided(high, freedom) > 1 - level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if two_sided(middle, freedom) > 1 - level:
            low = middle
        else:
            high = middle
        if high - low < 1e-9 * high:
            break
    return (low + high) / 2


def _beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function I_x(a, b)."""
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - _beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    tiny = 1e-300
    c, d = 1.0, 1 / max(tiny, 1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 1000):  # Lentz's method; some ten turns in practice
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        d = 1 / _away(1 + even * d, tiny)
        c = _away(1 + even / c, tiny)
        fraction *= c * d
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / _away(1 + odd * d, tiny)
        c = _away(1 + odd / c, tiny)
        change = c * d
        fraction *= change
        if abs(change - 1) < 1e-15:
            break
    return front * fraction / a


def _away(value: float, tiny: float) -> float:
    """The value, moved from 0 where it would be divided by."""
    return value if abs(value) > tiny else tiny
