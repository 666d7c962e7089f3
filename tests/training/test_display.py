"""What a terminal shows of training: everything fits 80 columns, and no number is shown before there is one."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace
from typing import Any, cast

import pytest

from minialex.screen.escaping import Console
from minialex.training import display

LONG = 987_654  # seconds, 11.4 days


def shown(width: int, classes: int, monkeypatch: pytest.MonkeyPatch, steps: int = 3) -> list[str]:
    """All lines and states of the bar, as wide as they are on a terminal."""
    times = iter(range(0, 10**9, LONG // 30))
    monkeypatch.setattr(display.time, "monotonic", lambda: float(next(times)))
    out = io.StringIO()
    screen = Console(file=out, width=width, force_terminal=True, color_system=None, markup=False, highlight=False)
    recipe = SimpleNamespace(batch_size=128, epochs=90, model="alexnet", columns=2)
    session = SimpleNamespace(
        recipe=recipe, backend=SimpleNamespace(name="numba"), plan=SimpleNamespace(placement=("cpu:0", "cpu:1"))
    )
    data = SimpleNamespace(
        name="imagenet", train=range(1_281_167), validation=range(50_000), class_names=("name",) * classes
    )
    with display.TrainingDisplay(screen) as listener:
        listener.begin(cast(Any, session), cast(Any, data), 10_009, 0)
        listener.meter.progress.refresh()
        for step in range(1, steps + 1):
            listener.stepped(step + 50 * 10_009, 6.912, 0.0, 0.01)
            listener.meter.progress.refresh()
        listener.validating(25_000, 50_000)
        listener.meter.progress.refresh()
        record = {
            "kind": "validation",
            "epoch": 50,
            "loss": 6.9,
            "top1_error": 0.9995,
            "top5_error": 0.995,
            "seconds": 80,
        }
        listener.recorded(record)
    lines = re.split(r"\r|\n", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue()))
    return [line.rstrip() for line in dict.fromkeys(lines) if line.strip()]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_lines_and_bars_fit(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(width, 1000, monkeypatch)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "1,281,167 training and 50,000 validation images, 1,000 classes" in text.replace("\n", " "), (
        "broken between words"
    )
    bars = [line for line in lines if line.startswith("epoch 51/90")]
    assert any(re.fullmatch(r"epoch 51/90 [━╸╺ ]{8,20} .*loss 6\.912, error 100\.0%, \d+ images/s, .* left", bar)
               for bar in bars), bars  # fmt: skip
    assert ("3/10,009" in bars[-1]) == (width >= 100)
    assert any(re.match("validation +━", line) for line in lines)


def test_no_number_before_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(80, 1000, monkeypatch, steps=1)
    waiting = next(line for line in lines if "kernels may be compiled" in line)
    assert not re.search(r"\d", waiting)
    first = [line for line in lines if "loss 6.912" in line and line.startswith("epoch 51/90")]
    assert first
    assert not any("images/s" in line or "left" in line for line in first), "the first step may have compiled"


def test_the_bar_says_how_many_kernels_are_compiled() -> None:
    out = io.StringIO()
    screen = Console(file=out, width=80, force_terminal=True, color_system=None, markup=False, highlight=False)
    with display.TrainingDisplay(screen) as listener:
        for done in (0, 12, 57):
            listener.preparing("compiling kernels", done, 57, "kernels")
            listener.meter.progress.refresh()
    assert re.search(r"compiling kernels +[━╸╺ ]+ +12/57, .*kernels/s", out.getvalue())


@pytest.mark.parametrize("classes", [5, 6])
def test_top_5_where_there_are_more_than_five_classes(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = (line for line in shown(80, classes, monkeypatch) if line.startswith("epoch 50 "))
    assert "error 99.95%" in line
    assert ("top-5 99.50%" in line) == (classes > 5)
