"""The picture of an outcome: one point per seed, the mean with its interval, the paper's effect; figure 1 for ReLU."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from minialex.figures.pictures import BLUE, GRID, INK, MUTED, ORANGE, blank, style
from minialex.studies import search, words
from minialex.studies.outcome import Outcome
from minialex.studies.study import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOAL = 25  # per cent, the line of figure 1
WIDTH = 8.6
BESIDE_LEGEND = {"left": 0.09, "right": 0.72}
"""Where the axes are that a legend stands beside."""
TICKS = 8
"""Rates that have room for their numbers under a search."""
SEARCHED = {
    "error": "validation top-1 error, %",
    "gap": "validation top-1 error, %",
    "training": "training top-1 error in the last epoch, %",
    "epochs": "epochs to 25% (above the limit: points left)",
    "start": "steps until the loss has left chance",
}
"""What a search minimises, by the study's measure."""


def picture(outcome: Outcome) -> Figure:
    """Draw an outcome.

    On the left, one row per arm: its runs' values, their mean and its 95% interval. On the right, the differences
    from the first arm, with their intervals and, as a diamond, the paper's. A study of training curves is drawn like
    figure 1 of the paper.
    """
    if all(arm.curves for arm in outcome.arms):
        return _curves(outcome)
    count = len(outcome.arms)
    height = 1.4 + 0.5 * count
    with style():
        figure = blank(WIDTH, height)
        edges = {"bottom": 0.77 / height, "top": 1 - 0.5 / height, "left": 2.35 / WIDTH, "right": 1 - 0.2 / WIDTH}
        left, right = figure.subplots(1, 2, gridspec_kw={**edges, "wspace": 0.09}, sharey=True)
        _values(left, outcome)
        _differences(right, outcome)
        rows = [textwrap.fill(outcome.study.arm(arm.name).words, 30) for arm in outcome.arms]
        left.set_yticks(range(count), rows)
        left.set_ylim(count - 0.5, -0.5)
        left.tick_params(axis="y", length=0, labelcolor=INK)
        right.tick_params(axis="y", length=0)
        for axes in (left, right):
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x", color=GRID, linewidth=0.7)
            axes.set_axisbelow(True)
        _heading(figure, outcome, height)
    return figure


def tuning(outcome: Outcome) -> Figure | None:
    """Draw what the search for learning rates measured: a point per seed, a line per arm, a ring at the chosen rate.

    None if nothing was searched with the study as it is now.
    """
    study = outcome.study
    curves = {arm.name: search.tuning(study, arm) for arm in study.arms if not arm.rate_of}
    if not any(curves.values()):
        return None
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator

    width, height = 7.2, 3.6
    with style():
        figure = blank(width, height)
        axes = figure.subplots(gridspec_kw={**BESIDE_LEGEND, "bottom": 0.15, "top": 0.87})
        for n, arm in enumerate(arm for arm in study.arms if curves.get(arm.name)):
            hue, dashes = _line(n)
            curve = {rate: np.array(values)[np.isfinite(values)] for rate, values in curves[arm.name].items()}
            curve = {rate: values for rate, values in curve.items() if len(values)}
            for rate, values in curve.items():
                axes.plot(np.full(len(values), rate), values, ".", color=hue, alpha=0.45, markeredgewidth=0)
            means = {rate: float(values.mean()) for rate, values in curve.items()}
            axes.plot(list(means), list(means.values()), color=hue, linestyle=dashes, linewidth=1.3,
                      label=_label(outcome, arm.name))  # fmt: skip
            if arm.learning_rate in means:
                axes.plot([arm.learning_rate], [means[arm.learning_rate]], "o", color=hue, markerfacecolor="none",
                          markersize=9)  # fmt: skip
        axes.set_xscale("log")
        rates = sorted({rate for curve in curves.values() for rate in curve})
        axes.xaxis.set_major_locator(FixedLocator(rates) if len(rates) <= TICKS else LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:.2g}"))
        axes.minorticks_off()
        axes.set_xlabel("learning rate")
        axes.set_ylabel(SEARCHED[study.measure])
        axes.grid(color=GRID, linewidth=0.7)
        _legend(axes)
        _heading(figure, outcome, height, "the search for learning rates")
    return figure


def _line(n: int) -> tuple[str, Any]:
    """Colour and dashes of the n-th arm."""
    return (BLUE, ORANGE, MUTED)[n % 3], ("-", (0, (5, 1.5)))[n // 3 % 2]


def _label(outcome: Outcome, name: str) -> str:
    return textwrap.fill(outcome.study.arm(name).words, 22)


def _legend(axes: Axes) -> None:
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.02), fontsize=8.5)


def _heading(figure: Figure, outcome: Outcome, height: float, what: str = "") -> None:
    title = (
        outcome.study.title + (f": {what}" if what else "") + (" (quick mode: proves nothing)" if outcome.quick else "")
    )
    figure.text(0.02, 1 - 0.12 / height, title, va="top", fontsize=10.5, color=INK, weight="bold")


def _values(axes: Axes, outcome: Outcome) -> None:
    for row, arm in enumerate(outcome.arms):
        hue = BLUE if row == 0 else ORANGE
        numbers = outcome.numbers(arm)
        axes.plot(numbers, np.full(len(numbers), row), "o", color=hue, alpha=0.4, markersize=4.5, markeredgewidth=0)
        found = outcome.means[arm.name]
        if found.count > 1:
            axes.plot([found.low, found.high], [row, row], color=hue, linewidth=1.4)
        axes.plot([found.mean], [row], "|", color=hue, markersize=15, markeredgewidth=2.2)
    axes.axvline(outcome.means[outcome.base.name].mean, color=BLUE, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel(MEASURES[outcome.study.measure])


def _differences(axes: Axes, outcome: Outcome) -> None:
    axes.axvline(0, color=BLUE, linewidth=0.8, linestyle=(0, (4, 3)))
    for row, arm in enumerate(outcome.arms[1:], 1):
        found = outcome.differences[arm.name]
        hue = MUTED if found.includes_zero else ORANGE
        if found.count > 1:
            axes.plot([found.low, found.high], [row, row], color=hue, linewidth=2.2, solid_capstyle="butt")
        axes.plot([found.mean], [row], "o", color=hue, markersize=6)
        of = outcome.study.arm(arm.name)
        if of.effect is not None and outcome.study.measure == "error" and of.expect != "none":
            effect = of.effect * (1 if of.expect == "worse" else -1)
            label = "the paper, ImageNet"
            axes.plot([effect], [row], "D", color=INK, markersize=5, markerfacecolor="none", label=label)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles[:1], labels[:1], frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), fontsize=8.5,
                    borderaxespad=0.1)  # fmt: skip
    whom = "the first row" if words.one_base(outcome) else "the row that each is compared with"
    axes.set_xlabel(f"difference from {whom}\n(grey: the 95% interval includes zero)")


def _curves(outcome: Outcome) -> Figure:
    width, height = 7.2, 4.0
    with style():
        figure = blank(width, height)
        axes = figure.subplots(gridspec_kw={**BESIDE_LEGEND, "bottom": 0.13, "top": 0.88})
        highest = 0.0
        for n, arm in enumerate(outcome.arms):
            hue, dashes = _line(n)
            for seed, curve in enumerate(arm.curves):
                x, y = np.array(curve).T
                axes.plot(x, 100 * y, color=hue, linewidth=1.1, alpha=0.65, linestyle=dashes,
                          label="" if seed else _label(outcome, arm.name))  # fmt: skip
                highest = max(highest, float(100 * y.max()))
        axes.axhline(GOAL, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axes.annotate(f"{GOAL}%", (0, GOAL), (2, 3), textcoords="offset points", color=INK, fontsize=8.5)
        axes.set_ylim(0, highest * 1.05)
        axes.set_xlim(left=0)
        axes.set_xlabel("epochs")
        axes.set_ylabel("training error, % (mean over the epoch before)")
        axes.grid(axis="y", color=GRID, linewidth=0.7)
        _legend(axes)
        _heading(figure, outcome, height)
        if outcome.quick:
            figure.text(0.5, 0.5, words.QUICK, ha="center", color=MUTED)
    return figure
