"""How far work is, where there is no terminal: a line now and then."""

from __future__ import annotations

import io
import itertools

import pytest
from rich.console import Console

from minialex.screen import terminal
from minialex.screen.terminal import console, counting


def test_a_plain_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 15.0)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    screen = Console(width=100, file=io.StringIO())
    with counting(screen, "reading", 100) as tell:
        for count in (0, 10, 20, 30):
            tell(count)
    assert screen.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "reading: 10 of 100 images, 2 min 15 s left, 1 image/s",
        "reading: 30 of 100 images, 1 min 45 s left, 1 image/s",
    ]


def test_a_speed_that_rounds_to_nothing_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0.0, 30.0)
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(clock))
    screen = Console(width=100, file=io.StringIO())
    with counting(screen, "compiling", 57, "kernels") as tell:
        for count in (0, 12):
            tell(count)
    assert screen.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "compiling: 0 of 57 kernels",
        "compiling: 12 of 57 kernels, 1 min 52 s left",
    ]


def test_what_is_printed_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    console().print("minialex[cuda] :cat:")
    assert capsys.readouterr().out == "minialex[cuda] :cat:\n"


def test_wide_tables_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert console(least=110).width == 110
    assert console(least=60).width == 80
    assert console(least=110, fold=True).width == 110, "a file has room"
    monkeypatch.setenv("FORCE_COLOR", "1")  # which is Rich's way to say that it is a terminal
    assert console(least=110, fold=True).width == 80
    assert console(least=110).width == 110, "numbers are not folded"
