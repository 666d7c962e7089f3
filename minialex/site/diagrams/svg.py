"""Hand-written SVG: marks with a few roles on a sheet as wide as a phone, for light and dark pages.

A mark has a role, such as ``"one"`` for everything in the first column. The role is a CSS class, which
``docs/assets/diagrams.css`` colours for the page's palette, and plain attributes, which apply when a drawing is viewed
alone. A drawing has no ids and no blank lines, so that one Markdown page can include any number of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH = 360
"""Units across a sheet: a phone's column of text in pixels, so that a text of size 12 is readable there."""

ONE, TWO, INK, QUIET = "#0069a6", "#b94a00", "#1f2328", "#6b7280"

ROLES: dict[str, dict[str, str]] = {
    "one": {"fill": ONE},
    "two": {"fill": TWO},
    "ink": {"fill": INK},
    "quiet": {"fill": "#59606b"},
    "one-soft": {"fill": ONE, "fill-opacity": ".16", "stroke": ONE, "stroke-width": "1.2"},
    "two-soft": {"fill": TWO, "fill-opacity": ".16", "stroke": TWO, "stroke-width": "1.2"},
    "soft": {"fill": QUIET, "fill-opacity": ".14", "stroke": QUIET, "stroke-width": "1"},
    "paper": {"fill": "#fff"},
    "empty": {"fill": "none", "stroke": QUIET, "stroke-width": "1"},
    "one-line": {"fill": "none", "stroke": ONE, "stroke-width": "2"},
    "two-line": {"fill": "none", "stroke": TWO, "stroke-width": "2"},
    "line": {"fill": "none", "stroke": INK, "stroke-width": "1.2"},
    "guide": {"fill": "none", "stroke": QUIET, "stroke-width": "1", "stroke-dasharray": "3 3"},
    "rule": {"fill": "none", "stroke": QUIET, "stroke-width": ".6", "stroke-opacity": ".6"},
}
"""The look of marks without a style sheet."""

Point = tuple[float, float]


def _number(value: float) -> str:
    return f"{round(value, 2):g}"


@dataclass
class Drawing:
    """A sheet of `WIDTH` by `height`; `says` is its alternative text."""

    name: str
    says: str
    height: float = 0.0
    marks: list[str] = field(default_factory=list)

    def _mark(self, tag: str, role: str, inside: str = "", **attributes: float | str) -> None:
        written = {**ROLES[role], **{key.replace("_", "-"): value for key, value in attributes.items()}}
        listed = " ".join(
            f'{key}="{_number(value) if isinstance(value, int | float) else escape(value)}"'
            for key, value in written.items()
        )
        self.marks.append(f'<{tag} class="d-{role}" {listed}' + (f">{inside}</{tag}>" if inside else "/>"))

    def rect(self, x: float, y: float, width: float, height: float, role: str = "empty", round: float = 2) -> None:
        """A rectangle from its upper left corner."""
        self._mark("rect", role, x=x, y=y, width=width, height=height, rx=min(round, width / 2, height / 2))

    def disc(self, x: float, y: float, radius: float, role: str = "ink") -> None:
        """A disc around a point."""
        self._mark("circle", role, cx=x, cy=y, r=radius)

    def path(self, points: Sequence[Point], role: str = "line", **attributes: float) -> None:
        """A line through points."""
        listed = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
        self._mark("polyline", role, "", points=listed, **attributes)

    def arrow(self, points: Sequence[Point], role: str = "line", head: float = 7) -> None:
        """A line through points with an arrowhead at its end; `role` is that of a line."""
        (x0, y0), (x, y) = points[-2:]
        angle = math.atan2(y - y0, x - x0)
        back = [(x - head * math.cos(angle + turn), y - head * math.sin(angle + turn)) for turn in (0.42, -0.42)]
        middle = ((back[0][0] + back[1][0]) / 2, (back[0][1] + back[1][1]) / 2)
        self.path([*points[:-1], middle], role)
        filled = {"one-line": "one", "two-line": "two"}.get(role, "ink" if role == "line" else "quiet")
        listed = " ".join(f"{_number(a)},{_number(b)}" for a, b in [(x, y), *back])
        self._mark("polygon", filled, points=listed)

    def text(
        self, x: float, y: float, words: str, role: str = "ink", size: float = 12, anchor: str = "middle",
        bold: bool = False, **data: str,
    ) -> None:  # fmt: skip
        """Text on a baseline; `anchor` is ``"start"``, ``"middle"`` or ``"end"``; live parts find it by `data`."""
        weight = "700" if bold else "400"
        self._mark(
            "text", role, escape(words), x=x, y=y, font_size=size, text_anchor=anchor, font_weight=weight, **data
        )

    def sideways(self, x: float, y: float, words: str) -> None:
        """Muted vertical text, read from bottom to top, centred on a point."""
        turned = f"translate({_number(x)} {_number(y)}) rotate(-90)"
        self._mark("text", "quiet", escape(words), font_size=11, text_anchor="middle", transform=turned)

    def crossed(self, x: float, y: float, radius: float) -> None:
        """An empty circle, crossed out."""
        self._mark("circle", "empty", cx=x, cy=y, r=radius)
        reach = radius * 0.55
        for turn in (1, -1):
            self.path([(x - reach, y - turn * reach), (x + reach, y + turn * reach)], "rule")

    def render(self) -> str:
        """The drawing as one SVG element."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {_number(self.height)}" role="img" '
            f'font-family="Roboto, Helvetica, Arial, sans-serif" aria-label="{escape(" ".join(self.says.split()))}">'
        )
        return "\n".join([head, *self.marks, "</svg>"]) + "\n"


@dataclass(frozen=True)
class Axes:
    """Axes on a sheet: `x0` … `x1` across, `y0` at the bottom and `y1` at the top."""

    drawing: Drawing
    left: float
    top: float
    width: float
    height: float
    x0: float
    x1: float
    y0: float
    y1: float

    def at(self, x: float, y: float) -> Point:
        """The position of a pair of numbers."""
        return (
            self.left + (x - self.x0) / (self.x1 - self.x0) * self.width,
            self.top + (self.y1 - y) / (self.y1 - self.y0) * self.height,
        )

    def curve(self, xs: Sequence[float], ys: Sequence[float], role: str) -> None:
        """A line through pairs of numbers."""
        self.drawing.path([self.at(x, y) for x, y in zip(xs, ys, strict=True)], role)

    def frame(self, xs: Sequence[float] = (), ys: Sequence[float] = (), form: str = "{:g}") -> None:
        """Both axes, with ticks at some numbers."""
        right, bottom = self.left + self.width, self.top + self.height
        for y in ys:
            height = self.at(self.x0, y)[1]
            self.drawing.path([(self.left, height), (right, height)], "rule")
            self.drawing.text(self.left - 5, height + 4, form.format(y), "quiet", 11, "end")
        for x in xs:
            place = self.at(x, self.y0)[0]
            self.drawing.path([(place, bottom), (place, bottom + 4)], "line")
            self.drawing.text(place, bottom + 16, form.format(x), "quiet", 11)
        self.drawing.path([(self.left, self.top), (self.left, bottom), (right, bottom)], "line")
