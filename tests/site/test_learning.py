"""The drawings of chapter 0: their numbers are right, and the page's script finds the places that it changes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from minialex.site.diagrams import learning
from minialex.studies.statistics import student

WIDGETS = Path(__file__).resolve().parents[2] / "docs" / "assets" / "live" / "widgets.js"


@pytest.mark.parametrize("w1", [learning.START["w1"], 1.7, -1.9])
def test_slopes_on_wires_are_what_trying_gives(w1: float) -> None:
    here = {**learning.START, "w1": w1}
    _, back = learning.numbers(**here)
    for name in ("w1", "x1", "w2", "x2", "b"):
        up, down = (learning.numbers(**{**here, name: here[name] + way * 1e-6})[0]["loss"] for way in (1, -1))
        assert back[name] == pytest.approx((up - down) / 2e-6, abs=1e-6), name


def test_the_script_finds_every_number_and_computes_each() -> None:
    drawn, (_, back) = learning.wires().render(), learning.numbers(**learning.START)
    assert set(re.findall(r'data-value="(\w+)"', drawn)) == set(re.findall(r'data-slope="(\w+)"', drawn)) == set(back)
    computed = re.search(r"back: \{([^}]*)\}", WIDGETS.read_text(encoding="utf-8"))
    assert computed is not None
    assert set(re.findall(r"(\w+):", computed[1])) == set(back)


def test_intervals_are_students() -> None:
    pytest.importorskip("scipy")
    assert float(student(4).ppf(0.975)) == pytest.approx(learning.STUDENT, abs=5e-4)
    missed = [low > 0 or high < 0 for _, low, high in learning.experiments(400)]
    assert 0.03 < sum(missed) / 400 < 0.07
