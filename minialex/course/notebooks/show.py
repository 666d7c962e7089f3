"""What notebooks often show: images, curves, tables, sources, recorded studies.

Each function returns an object that Jupyter displays if it is the last line of a cell. matplotlib is imported when the
first picture is drawn, IPython only by `ablation` and by Jupyter itself.
"""

from __future__ import annotations

import base64
import inspect
import math
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minialex import studies
from minialex.course import sources
from minialex.figures import pictures
from minialex.screen.formats import clip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 100
COLOURS = (pictures.BLUE, pictures.ORANGE, "#3f8f5f", "#8a5aa8", "#8c6d1f", pictures.MUTED)
"""Colours of curves and bars, in order; labels also say what they are."""


@dataclass(frozen=True)
class Text:
    """Markdown that a notebook shows; `made_of` names the library content in it, for tests."""

    markdown: str
    made_of: Mapping[str, Any] = field(default_factory=dict)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        data = {"text/markdown": self.markdown, "text/plain": self.markdown}
        return data, {"minialex": dict(self.made_of)} if self.made_of else {}


@dataclass(frozen=True)
class Picture:
    """A matplotlib figure that a notebook shows, as a PNG at about 100 dots per inch.

    `alt` is its alternative text; if it is empty, the cell's metadata has one (`minialex.course.notebooks.build`).
    """

    figure: Figure
    alt: str = ""

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, str], dict[str, Any]]:
        png = pictures.png(self.figure, dpi=DPI)
        data = {"image/png": base64.b64encode(png).decode(), "text/plain": "(a picture)"}
        return data, {"image/png": {"alt": self.alt}} if self.alt else {}


def text(markdown: str) -> Text:
    """Markdown text: how a notebook says what its results are."""
    return Text(textwrap.dedent(markdown).strip())


def source(*functions: Callable[..., Any] | type | str) -> Text:
    """The source of functions, classes or (by their dotted names) constants of the library, read from their files.

    Raises:
        TypeError, OSError: As in `inspect.getsource`, for objects without Python source.
    """
    files: dict[str, list[str]] = {}
    names = [name if isinstance(name, str) else _dotted(inspect.unwrap(name)) for name in functions]
    for name in names:
        whole = resolve_name(name)
        home = whole.__module__ if callable(whole) else name.rpartition(".")[0]
        file = Path(inspect.getsourcefile(sys.modules[home]) or "?")
        code = sources.source(name).rstrip()
        files.setdefault(f"{file.parent.name}/{file.name}", []).append(code)
    parts = ["`{}`\n```python\n{}\n```".format(file, "\n\n\n".join(codes)) for file, codes in files.items()]
    return Text("\n\n".join(parts), {"source": names})


def _dotted(whole: Any) -> str:
    return f"{whole.__module__}.{whole.__qualname__}"


def table(rows: Sequence[Sequence[object]], columns: Sequence[str]) -> Text:
    """A table: text aligned left, numbers right."""
    texts = [[_cell(value) for value in row] for row in rows]
    right = [all(_is_number(row[i]) for row in rows) for i in range(len(columns))]
    lines = ["| " + " | ".join(columns) + " |", "|" + "|".join("---:" if r else ":---" for r in right) + "|"]
    return Text("\n".join(lines + ["| " + " | ".join(row) + " |" for row in texts]))


def rounded(value: float, digits: int = 1) -> str:
    """A number with `digits` significant digits, written out: ``5,000``, ``0.07``. Varying times need no more."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(places, 0)}f}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _cell(value: object) -> str:
    if isinstance(value, bool) or not _is_number(value):
        return str(value).replace("|", "\\|").replace("\n", " ")
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    assert isinstance(value, float | np.floating)
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def images(
    pixels: NDArray[Any] | Sequence[NDArray[Any]],
    titles: Sequence[str] = (),
    *,
    columns: int = 8,
    size: float = 1.05,
    headline: str = "",
) -> Picture:
    """Show images in a grid, without interpolation: pixels stay squares.

    Args:
        pixels: images [3,H,W] (colour) or [H,W] (grey); uint8, or floats that are scaled from their smallest to their
            largest value, over all images
        titles: one above each image, or none
        columns: images per row
        size: size of an image in inches
        headline: title above all
    """
    prepared = [_drawable(image) for image in pixels]
    floats = [image for image in prepared if image.dtype != np.uint8]
    low, high = min((float(i.min()) for i in floats), default=0.0), max((float(i.max()) for i in floats), default=1.0)
    columns = max(1, min(columns, len(prepared)))
    rows = -(-len(prepared) // columns)
    above = 0.24 if any(titles) else 0.05
    top = 0.34 if headline else 0.02
    width, height = columns * (size + 0.07), rows * (size + above) + top
    with pictures.style():
        figure = pictures.blank(max(width, 0.085 * len(headline)), height)
        for i, image in enumerate(prepared):
            row, column = divmod(i, columns)
            bottom = 1 - (top + (row + 1) * (size + above)) / height
            across = figure.get_size_inches()[0]
            axes = figure.add_axes((column * (size + 0.07) / across, bottom, size / across, size / height))
            whole = image.dtype == np.uint8
            shown = image if whole else (image - low) / (high - low if high > low else 1.0)
            axes.imshow(shown, cmap="gray", vmin=0, vmax=255 if whole else 1, interpolation="nearest")
            axes.set_axis_off()
            if i < len(titles):
                axes.set_title(clip(titles[i], round(15 * size)), fontsize=8, loc="center", pad=2)
        if headline:
            figure.text(0.0, 1 - 0.04 / height, headline, va="top", fontsize=10.5)
    return Picture(figure)


def _drawable(image: NDArray[Any]) -> NDArray[Any]:
    image = np.asarray(image)
    if image.ndim == 3 and image.shape[0] == 3:
        return image.transpose(1, 2, 0)
    if image.ndim == 2:
        return image
    raise ValueError(f"an image is [3,H,W] or [H,W], got {image.shape}")


def curves(
    lines: Mapping[str, tuple[Any, Any]],
    x: str,
    y: str,
    *,
    headline: str = "",
    level: tuple[float, str] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    limits: tuple[float, float] | None = None,
    ticks: Sequence[str] = (),
    width: float = 6.6,
    height: float = 3.4,
) -> Picture:
    """Draw curves in one pair of axes, with their names beside them.

    Args:
        lines: name -> (x values, y values)
        x, y: labels of the axes
        level: a dashed horizontal line and its label
        log_x, log_y: logarithmic axes
        limits: limits of the y axis
        ticks: names of the x values 0, 1, 2 …
    """
    with pictures.style():
        figure = pictures.blank(width, height)
        left = 0.85 if log_y else 0.62
        axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.18) / width, 1 - 0.86 / height))
        for number, (name, (across, up)) in enumerate(lines.items()):
            colour = COLOURS[number % len(COLOURS)]
            form = ("-", "--", ":")[number // len(COLOURS) % 3]
            axes.plot(np.asarray(across, float), np.asarray(up, float), form, color=colour, label=name)
        if level is not None:
            axes.axhline(level[0], color=pictures.MUTED, linewidth=1, linestyle="--")
            axes.annotate(level[1], (1.0, level[0]), xycoords=("axes fraction", "data"), xytext=(0, 3),
                          textcoords="offset points", ha="right", fontsize=8.5, color=pictures.MUTED)  # fmt: skip
        for axis, scale, logarithmic in ((axes.xaxis, axes.set_xscale, log_x), (axes.yaxis, axes.set_yscale, log_y)):
            if logarithmic:
                scale("log")
                axis.set_major_formatter(lambda value, place: f"{value:g}")
                axis.set_minor_formatter(lambda value, place: "")
        if limits:
            axes.set_ylim(limits)
        if ticks:
            axes.set_xticks(np.arange(len(ticks)), list(ticks))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.set_title(headline)
        axes.grid(color=pictures.GRID, linewidth=0.7)
        if any(not name.startswith("_") for name in lines):
            axes.legend(frameon=False, fontsize=9)
    return Picture(figure)


def bars(values: Mapping[str, float], x: str, *, headline: str = "", form: str = "{:.3g}") -> Picture:
    """Horizontal bars, each with its number."""
    width, height = 6.6, 0.62 + 0.3 * len(values) + (0.25 if headline else 0)
    left = 0.35 + 0.075 * max(map(len, values))
    with pictures.style():
        figure = pictures.blank(width, height)
        axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.7) / width, 0.3 * len(values) / height))
        places = np.arange(len(values))[::-1]
        numbers = list(values.values())
        axes.barh(places, numbers, color=pictures.BLUE, height=0.66)
        for place, number in zip(places, numbers, strict=True):
            axes.annotate(
                form.format(number), (number, place), xytext=(4, 0), textcoords="offset points", va="center", fontsize=9
            )
        axes.set_yticks(places, list(values), color=pictures.INK)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(x)
        axes.set_title(headline)
    return Picture(figure)


def figure(drawn: Figure) -> Picture:
    """Show a figure from `minialex.figures.pictures`, `minialex.figures.look` or the reader's own matplotlib code."""
    return Picture(drawn)


@dataclass(frozen=True)
class Ablation:
    """A recorded study as a notebook shows it: verdict, table, picture, origin."""

    name: str

    def _ipython_display_(self) -> None:
        from IPython.display import display

        for part in ablation_parts(self.name):
            display(part)


def ablation(name: str) -> Ablation:
    """Show a recorded study, with table and verdict made from the recorded results.

    If nothing is recorded yet, it says so, with the command that would record it.
    """
    return Ablation(name)


def ablation_text(name: str) -> Text:
    """The text and the table that `ablation` shows; draws nothing."""
    made_of = {"ablation": name}
    outcome = studies.recorded(name)
    if outcome is None:
        return Text(f"*The study `{name}` is not recorded yet: `minialex ablate {name}` runs it.*", made_of)
    sentences = "\n".join(f"- {sentence}" for sentence in studies.verdict(outcome))
    note = f"<small>{studies.provenance(outcome)}</small>"
    return Text(f"{sentences}\n\n{studies.table(outcome)}\n\n{note}", made_of)


def ablation_parts(name: str) -> list[Text | Picture]:
    """The parts that `ablation` shows."""
    outcome = studies.recorded(name)
    if outcome is None:
        return [ablation_text(name)]
    searched = studies.tuning_picture(outcome)
    return [
        ablation_text(name),
        Picture(studies.picture(outcome), studies.picture_text(outcome)),
        *([] if searched is None else [Picture(searched, studies.tuning_text(outcome))]),
    ]
