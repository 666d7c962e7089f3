"""The competition year by year, and what folding a line does: depth, drawn."""

from __future__ import annotations

import numpy as np

from minialex.site import competition
from minialex.site.diagrams.svg import WIDTH, Axes, Drawing


def contest() -> Drawing:
    """Top-5 errors of the competition's entries over the years, from ``competition.toml``."""
    found = competition.entries()
    first, last = found[0].year, found[-1].year
    best = {e.year: e for e in reversed(found)}
    drawing = Drawing(
        "contest",
        "Top-5 errors in the ImageNet competition. The best entry of each year: "
        + ", ".join(f"{year} {best[year].team} {best[year].error:.1f}%" for year in sorted(best))
        + f". A person who practised makes {competition.HUMAN:g}%.",
        330,
    )
    axes = Axes(drawing, 34, 34, WIDTH - 50, 230, first - 0.4, last + 0.4, 0, 31)
    drawing.text(34, 18, "top-5 test error, %", "ink", 13, "start", bold=True)
    axes.frame(range(first, last + 1), (0, 5, 10, 15, 20, 25, 30))
    drawing.path([axes.at(axes.x0, competition.HUMAN), axes.at(axes.x1, competition.HUMAN)], "guide")
    drawing.text(*axes.at(axes.x0 + 0.1, competition.HUMAN + 0.5), "a person", "quiet", 11, "start")
    for entry in found:
        drawing.disc(*axes.at(entry.year, entry.error), 5, "one" if entry.network else "two")
    for year, entry in best.items():
        x, y = axes.at(year, entry.error)
        name = entry.team.split("(")[-1].rstrip(")")
        if not entry.network:
            drawing.text(x - 5, y - 10 if year == first else y + 18, name, "ink", 11, "start")
        elif year == last:
            drawing.text(x + 14, y - 10, name, "ink", 11, "end")
        else:
            drawing.text(x + 9, y + 5, name, "ink", 11, "start")
    drawing.disc(40, 296, 5, "one")
    drawing.text(50, 300, "convolutional networks", "ink", 12, "start")
    drawing.disc(204, 296, 5, "two")
    drawing.text(214, 300, "hand-made features", "ink", 12, "start")
    drawing.text(34, 320, "named: the best of the year", "quiet", 11, "start")
    return drawing


def tent(x: np.ndarray) -> np.ndarray:
    """Two ReLUs that fold the line from 0 to 1 in the middle."""
    folded: np.ndarray = 2 * np.maximum(x, 0) - 4 * np.maximum(x - 0.5, 0)
    return folded


def folds() -> Drawing:
    """The tent, applied once, twice and four times."""
    drawing = Drawing(
        "folds",
        "Three curves over the interval from 0 to 1, one below the other. One layer of two units: a single tent. Two "
        "layers: two tents. Four layers: eight tents.",
    )
    x = np.linspace(0, 1, 257)
    y, top = x, 14.0
    for layers in range(1, 5):
        y = tent(y)
        if layers == 3:
            continue
        axes = Axes(drawing, 24, top + 12, WIDTH - 40, 70, 0, 1, 0, 1)
        pieces = 1 + int(np.count_nonzero(np.diff(np.sign(np.diff(y)))))
        words = f"{layers} layer{'s' if layers > 1 else ''}, {2 * layers} units: {pieces} straight pieces"
        drawing.text(24, top, words, "ink", 13, "start", bold=True)
        axes.frame((0, 1) if layers == 4 else (), (0, 1))
        axes.curve(x.tolist(), y.tolist(), "one-line")
        top += 108
    drawing.height = top
    return drawing
