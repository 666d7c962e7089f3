"""Numbers and texts as people read them."""

from __future__ import annotations

import os
import re
import subprocess
import unicodedata
from pathlib import Path

import pytest

import minialex
from minialex.screen.formats import (
    LIKENESS,
    amount,
    duration,
    long_time,
    milliseconds,
    percent,
    plain,
    plural,
    readable_size,
    seconds,
    shell,
)


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
    assert plain("a\x00b\nc\u2028d\r\t") == r"a\x00b\nc\u2028d\r\t"
    assert plain("\x1b[2J\x9b31m\x07\x7f") == r"\x1b[2J\u009b31m\x07\x7f", "a terminal obeys none of it"
    assert plain("a\nb\tc", keep="\n\t") == "a\nb\tc"
    assert plain("\u202eevil\u2066") == r"\u202eevil\u2066"
    assert plain("\udcff\ud800\ufffe\U0001ffff") == r"\udcff\ud800\ufffe\U0001ffff"
    assert plain("Füße 中文 🐈 3\N{NO-BREAK SPACE}% a\\b") == "Füße 中文 🐈 3\N{NO-BREAK SPACE}% a\\b"
    every = "".join(map(chr, range(0x3000)))
    assert plain(plain(every)) == plain(every)
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in plain(every))


@pytest.mark.skipif(os.name != "posix", reason="bash's quoting")
@pytest.mark.parametrize(
    "name", ["a b", "it's", "[red]x", "$HOME`x`", "a\nb", "\x1b[31m\\'", "\udcff9", "é", "a\u202eb", ""]
)
def test_a_printed_command_means_what_was_printed(name: str) -> None:
    text = shell("printf", "%s", name)
    assert plain(text) == text
    assert subprocess.run(["bash", "-c", text], capture_output=True, check=True).stdout == os.fsencode(name)


def test_a_path_is_no_option() -> None:
    assert shell("minialex", "predict", Path("-run"), "--views", 10) == "minialex predict ./-run --views 10"


def test_what_an_encoding_lacks_is_replaced() -> None:
    assert "5 × 5 … 3\N{NO-BREAK SPACE}% é 中".encode("ascii", LIKENESS) == b"5 x 5 ... 3 % e ?"
    assert "5 × 5 √ é 中".encode("cp1252", LIKENESS) == "5 × 5 sqrt é ?".encode("cp1252")


def test_a_noun_agrees_with_its_number() -> None:
    assert [plural(1, "class"), plural(2, "class"), plural(1000, "epoch")] == ["1 class", "2 classes", "1,000 epochs"]


def test_a_training_may_have_one_epoch() -> None:
    """No "1 epochs": wherever a user reads a number of epochs, `plural` has written it."""
    folder = Path(minialex.__file__).parent
    paths = [path for path in folder.rglob("*.py") if path.relative_to(folder).parts[0] not in ("site", "course")]
    assert len(paths) > 100
    assert [path for path in paths if re.search(r"\} epochs\b", path.read_text(encoding="utf-8"))] == []
