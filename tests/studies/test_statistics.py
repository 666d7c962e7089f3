"""Student's distribution against SciPy, and what intervals promise."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minialex.studies import statistics
from minialex.studies.statistics import estimate, holm, paired

NUMBERS = st.floats(-100, 100)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 30, 3999])
def test_student_is_scipys(freedom: int) -> None:
    assert statistics.quantile(0.95, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-7)
    for t in (0.0, 0.1, 1.0, 2.5, 12.0, 200.0):
        assert statistics.two_sided(t, freedom) == pytest.approx(2 * stats.t.sf(t, freedom), rel=1e-9, abs=1e-300)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=2, max_size=8))
def test_paired_is_scipys(pairs: list[tuple[float, float]]) -> None:
    arm, base = zip(*pairs, strict=True)
    found = paired(arm, base)
    differences = [a - b for a, b in pairs]
    if max(differences) - min(differences) < 1e-6:
        return  # SciPy's variance is rounding error
    theirs = stats.ttest_rel(arm, base)
    assert found.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)
    low, high = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(low, rel=1e-6, abs=1e-9), pytest.approx(high, rel=1e-6, abs=1e-9))
    assert found.includes_zero == (found.p >= 0.05) or abs(found.p - 0.05) < 1e-6


def test_one_value_proves_nothing() -> None:
    found = estimate([3.0])
    assert math.isinf(found.low)
    assert math.isinf(found.high)
    assert found.p == 1
    with pytest.raises(ValueError, match="no values"):
        estimate([])


def test_values_without_spread() -> None:
    assert estimate([0.0, 0.0]).p == 1
    assert not estimate([1.0, 1.0, 1.0]).includes_zero


def test_holm_by_hand() -> None:
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert adjusted == pytest.approx({"a": 0.03, "c": 0.06, "b": 0.06})
    assert holm({"a": 0.9, "b": 0.8})["a"] == 1.0
