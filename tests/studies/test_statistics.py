"""Student's distribution against SciPy, and what intervals promise."""

from __future__ import annotations

import math
import sys
from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from minialex.errors import ConfigurationError
from minialex.studies import names, recorded, words
from minialex.studies.statistics import estimate, holm, paired

NUMBERS = st.floats(-100, 100)


def test_student_by_its_table() -> None:
    found = estimate([1.0, 2.0, 3.0, 4.0])  # t(3) = 4.472 for the mean, and its 97.5 % point is 3.182 (Student's table)
    half = 3.182446 * math.sqrt(5 / 3 / 4)
    assert (found.low, found.high) == pytest.approx((2.5 - half, 2.5 + half), rel=1e-6)
    assert found.p == pytest.approx(0.030466, rel=1e-4)


@pytest.mark.parametrize("name", names())
def test_what_is_recorded_is_what_the_values_give(name: str) -> None:
    """Values are recorded with four digits after the point, intervals with all."""
    kept = recorded(name)
    if kept is None:
        pytest.skip(f"nothing is recorded of {name}")
    fresh = replace(kept, recorded_means={}, recorded_differences={})
    for found, again in ((kept.means, fresh.means), (kept.differences, fresh.differences)):
        assert list(found) == list(again)
        for arm in found:
            assert astuple(found[arm]) == pytest.approx(astuple(again[arm]), rel=1e-3, abs=1e-4)


def test_without_scipy_what_is_recorded_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    for name in names():
        kept = recorded(name)
        if kept is not None:
            assert words.verdict(kept)
            assert words.table(kept)
    with pytest.raises(ConfigurationError, match=r"pip install 'minialex\[studies\]'"):
        estimate([1.0, 2.0])


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
