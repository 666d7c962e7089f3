"""One list of rows, set for a screen and for a document."""

from __future__ import annotations

import io

from rich.console import Console

from minialex.screen.sheet import Sheet


def shown(sheet: Sheet, **how: bool) -> list[str]:
    screen = Console(width=60, file=io.StringIO())
    screen.print(sheet.rich(**how))
    return [line.rstrip() for line in screen.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_markdown() -> None:
    sheet = Sheet("t", ("a", "b"), [["x", "1"]])
    assert sheet.markdown() == "t\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n"
    sheet = Sheet("", ("a", "b", "c"), [["x", "1", "2"]], "rl", total=[["sum", "1", "2"]])
    assert sheet.markdown() == "| a | b | c |\n| ---: | --- | --- |\n| x | 1 | 2 |\n| sum | 1 | 2 |\n"


def test_the_last_letter_of_the_alignment_holds_for_all_columns_that_follow() -> None:
    rows = [["x", "1", "22"], ["yy", "10", "3"]]
    assert shown(Sheet("", ("name", "one", "two"), rows), frame=False) == [
        " name  one  two", " x       1   22", " yy     10    3",
    ]  # fmt: skip


def test_cells_are_no_markup() -> None:
    assert any("minialex[cuda] [red]x" in line for line in shown(Sheet("", ("a",), [["minialex[cuda] [red]x"]])))


def test_the_total_stands_below_a_line() -> None:
    lines = shown(Sheet("title", ("a", "b"), [["x", "1"]], total=[["sum", "1"]]))
    assert lines[0].strip() == "title"
    assert [line.split()[1] for line in lines if line.startswith("│")] == ["x", "sum"]
    assert any(line.startswith("├") for line in lines)


def test_a_table_that_is_too_wide_becomes_several_with_equally_many_columns() -> None:
    sheet = Sheet("t", ("a", "text", *(f"n{n}" for n in range(5))), [["1", "words", *["12345"] * 5]], "rlr")
    assert sheet.fitting(200) == [sheet]
    parts = sheet.fitting(1 + 4 + 8 + 4 * 8)  # four of the five fit
    assert [list(part.header) for part in parts] == [["a", "text", "n0", "n1", "n2"], ["a", "text", "n3", "n4"]]
    assert [part.title for part in parts] == ["t", ""]
    assert len(sheet.fitting(10)) == 5, "never narrower than one column"
    alone = Sheet("t", ("text",), [["words"]], "l")
    assert alone.fitting(1) == [alone]


def test_of_a_table_on_a_narrow_terminal_nothing_is_lost() -> None:
    sheet = Sheet("", ("field", "meaning", "number"), [["conv1_padding", "zeros " * 9, "1234567"]], "llr")
    out = io.StringIO()
    Console(file=out, width=30).print(sheet.rich())
    said = out.getvalue()
    assert "…" not in said
    assert "1234567" in said
    assert "".join(line.split("│")[1].strip() for line in said.splitlines() if "│" in line) == "conv1_padding"
