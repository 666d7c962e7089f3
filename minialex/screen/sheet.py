"""Tables for the screen, a document, or both: one list of rows, two renderings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minialex.screen.formats import plain

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: heading above the table; may be empty
        header: names of the columns
        rows: texts, one per column in each row
        align: one letter per column, l for text and r for numbers; the last one also applies to all further columns
        total: rows below a line
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str = "lr"
    total: Sequence[Sequence[str]] = ()

    def rich(self, *, frame: bool = True, lines: bool = False) -> Table:
        """For the screen; `frame` draws lines around the table, `lines` between rows. No cell is markup or wraps."""
        from rich.box import HEAVY_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(plain(self.title), "bold") if self.title else None, title_justify="left", show_lines=lines,
            highlight=False,
            box=HEAVY_HEAD if frame else None, show_header=any(self.header),
        )  # fmt: skip
        for name, side in zip(self.header, self._sides(), strict=True):
            table.add_column(Text(plain(name)), justify="left" if side == "l" else "right")
        for row in self.rows:
            table.add_row(*(Text(plain(cell)) for cell in row))
        if self.total:
            table.add_section()
        for row in self.total:
            table.add_row(*(Text(plain(cell)) for cell in row))
        return table

    def markdown(self) -> str:
        """For a document; the title is a line above the table."""
        rule = ["---" if side == "l" else "---:" for side in self._sides()]
        rows = (self.header, rule, *self.rows, *self.total)
        cells = [[plain(cell.strip()).replace("|", r"\|") for cell in row] for row in rows]
        lines = [f"| {' | '.join(row)} |" for row in cells]
        return "\n".join(([self.title, ""] if self.title else []) + lines) + "\n"

    def _sides(self) -> str:
        return self.align[: len(self.header)].ljust(len(self.header), self.align[-1])
