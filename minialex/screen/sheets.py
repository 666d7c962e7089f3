"""Tables that are shown on a screen, written into a document, or both: one list of rows, two ways to set them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Sheet:
    """A table of texts.

    Attributes:
        title: said above it
        header: names of the columns
        rows: texts, as many in each as there are columns
        left: how many columns, from the left, hold words; the others hold numbers and are set to the right
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    left: int = 1

    def rich(self) -> Table:
        """For a screen."""
        table = Table(title=self.title or None, title_justify="left", title_style="bold", highlight=False)
        for index, name in enumerate(self.header):
            table.add_column(name, justify="left" if index < self.left else "right")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """For a document; the title is a line above."""
        rule = ["---" if index < self.left else "---:" for index in range(len(self.header))]
        lines = [f"| {' | '.join(cell.strip() for cell in row)} |" for row in (self.header, rule, *self.rows)]
        return "\n".join(([self.title, ""] if self.title else []) + lines) + "\n"


def seconds(value: float) -> str:
    """A short time in the unit that fits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if value >= 0.9995 * size:
            return f"{_three(value / size)} {unit}"
    return f"{_three(value * 1e6)} µs"


def long_time(value: float) -> str:
    """A long time: minutes, hours or days."""
    for unit, size in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if value >= 2 * size or unit == "min":
            return f"{_three(value / size)} {unit}"
    raise AssertionError


def amount(value: float, unit: str) -> str:
    """A number with k, M, G or T (powers of 1,000) before its unit."""
    for sign, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= 0.9995 * size:
            return f"{_three(value / size)} {sign}{unit}"
    return f"{_three(value)} {unit}"


def _three(value: float) -> str:
    """Three digits, or all there are before the point."""
    if value >= 99.95 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
