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
        for n, (name, side) in enumerate(zip(self.header, self._sides(), strict=True)):
            cells = [name, *(row[n] for row in (*self.rows, *self.total))] if side == "r" else []
            longest = max((len(word) for cell in cells for word in plain(cell).split()), default=None)
            table.add_column(  # no number is cut, and of a text that is too long nothing is lost
                Text(plain(name)), justify="left" if side == "l" else "right", min_width=longest, overflow="fold"
            )
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

    def fitting(self, width: int) -> list[Sheet]:
        """The table, or where it is wider than the screen, several with some of its columns each.

        Headings may wrap at words, cells of numbers may not. The columns up to the last one of text are in each.
        """
        cells = [*self.rows, *self.total]
        needs = [
            3 + max([len(word) for word in name.split()] + [len(row[n]) for row in cells])
            for n, name in enumerate(self.header)
        ]
        keys = max(1, self.align.rfind("l") + 1)
        rest, room = range(keys, len(self.header)), width - 1 - sum(needs[:keys])

        def fits(each: int) -> bool:
            return all(sum(needs[n] for n in rest[first : first + each]) <= room for first in range(0, len(rest), each))

        def parts(each: int) -> int:
            return -(-len(rest) // each)

        most = next((each for each in range(len(rest), 1, -1) if fits(each)), 1)
        if most >= len(rest):
            return [self]
        each = next(each for each in range(1, most + 1) if parts(each) == parts(most) and (fits(each) or each == most))
        groups = [rest[n : n + each] for n in range(0, len(rest), each)]
        return [self._some([*range(keys), *group], self.title if n == 0 else "") for n, group in enumerate(groups)]

    def _some(self, columns: Sequence[int], title: str) -> Sheet:
        """The table with some of its columns."""
        rows, total = ([[row[n] for n in columns] for row in part] for part in (self.rows, self.total))
        sides = self._sides()
        return Sheet(title, [self.header[n] for n in columns], rows, "".join(sides[n] for n in columns), total)

    def _sides(self) -> str:
        return self.align[: len(self.header)].ljust(len(self.header), self.align[-1])
