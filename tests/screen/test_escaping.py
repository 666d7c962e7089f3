"""What came from outside commands no terminal, whichever way it is printed."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from minialex.screen.escaping import Console
from minialex.screen.sheet import Sheet
from minialex.screen.terminal import counting, document, waiting

HOSTILE = "a[red]b[/x]\x1b[31m\x9b2J\u202e\udcff\rc"
SHOWN = r"a[red]b[/x]\x1b[31m\u009b2J\u202e\udcff\rc"


def printed(work: Callable[[Console], object], encoding: str = "utf-8", *, terminal: bool = False) -> str:
    """What a console writes into a file."""
    buffer = io.BytesIO()
    with io.TextIOWrapper(buffer, encoding=encoding, newline="") as file:
        screen = Console(
            file=file, width=120, markup=False, emoji=False, highlight=False, force_terminal=terminal, color_system=None
        )
        work(screen)
        file.flush()
        return buffer.getvalue().decode(encoding)


def table(cell: str | Text) -> Table:
    grid = Table(title=cell)
    grid.add_column(cell)
    grid.add_row(cell)
    return grid


@pytest.mark.parametrize(
    "work",
    [
        lambda screen: screen.print(HOSTILE, style="bold"),
        lambda screen: screen.print(f"{HOSTILE}\nforged"),
        lambda screen: screen.print(table(HOSTILE)),
        lambda screen: screen.print(Group(Panel(HOSTILE, title=Text(HOSTILE)), HOSTILE)),
        lambda screen: screen.print(Sheet(HOSTILE, (HOSTILE,), [[HOSTILE]], total=[[HOSTILE]]).rich()),
    ],
)
def test_all_of_it_is_shown_and_nothing_obeyed(work: Callable[[Console], object]) -> None:
    text = printed(work)
    assert SHOWN in text
    assert "\nforged" not in text
    assert not set(text) & set("\x1b\x9b\u202e\udcff\r")
    ascii_text = printed(work, "ascii")
    assert SHOWN in ascii_text


def test_texts_of_our_own_keep_their_lines_and_obey_nothing() -> None:
    assert printed(lambda screen: screen.print(Text("a\nb\x1b[31m"))) == "a\nb\\x1b[31m\n"


def test_what_rich_itself_commands_is_obeyed() -> None:
    def work(screen: Console) -> None:
        with counting(screen, HOSTILE, 3) as tell:
            tell(1)
        with waiting(screen, HOSTILE) as say:
            say(HOSTILE)

    text = printed(work, terminal=True)
    assert "\x1b[?25l" in text, "the cursor is hidden while a bar moves"
    assert SHOWN in text
    assert "\x1b[31m" not in text


def test_tables_stay_straight() -> None:
    lines = printed(lambda screen: screen.print(Sheet("", ("a",), [["x\x1b\x1b"], ["y"]]).rich())).splitlines()
    assert len({len(line) for line in lines}) == 1


def test_a_document_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    document('a = "b"\n\tc\x1b\x9b')
    assert capsys.readouterr().out == 'a = "b"\n\tc\\x1b\\u009b\n'
