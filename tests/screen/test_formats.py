"""Numbers and texts as people read them."""

from __future__ import annotations

import pytest

from minialex.screen.formats import amount, duration, long_time, milliseconds, percent, plain, readable_size, seconds


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (243_860_896, "243.9 MB"), (2 * 10**12, "2.0 TB")]
)
def test_readable_size(count: int, text: str) -> None:
    assert readable_size(count) == text


def test_times_and_amounts() -> None:
    assert [duration(x) for x in (7.6, 80, 11100, 345600)] == ["8 s", "1 min 20 s", "3 h 05 min", "4.0 days"]
    assert [seconds(x) for x in (2e-6, 999.7e-6, 0.0121, 3.14159, 250)] == [
        "2.00 µs", "1.00 ms", "12.1 ms", "3.14 s", "250 s",
    ]  # fmt: skip
    assert [long_time(x) for x in (30, 600, 7300, 86400 * 5.5)] == ["0.50 min", "10.0 min", "2.03 h", "5.50 days"]
    assert [milliseconds(x) for x in (0.00012, 0.0123, 1.23)] == ["0.12", "12.3", "1,230"]
    assert [amount(x, "B") for x in (12, 1500, 15.53e6, 2e9, 4.3e12)] == [
        "12.0 B", "1.50 kB", "15.5 MB", "2.00 GB", "4.30 TB",
    ]  # fmt: skip
    assert [percent(x) for x in (0.031, float("nan"))] == ["3.1\N{NO-BREAK SPACE}%", "–"]


def test_plain_text_has_no_control_or_turning_characters() -> None:
    assert plain("a\x00b\nc\u2028d") == "a b c d"
    assert plain("\x1b[2J\x9b31m\x07") == " [2J 31m ", "a terminal obeys none of it"
    assert plain("a\nb\tc", keep="\n\t") == "a\nb\tc"
    assert plain("\u202eevil\u2066") == "evil"
    assert plain("\udcff\ud800\ufffe") == "\N{REPLACEMENT CHARACTER}" * 3
    assert plain("Füße 中文 🐈") == "Füße 中文 🐈"
