"""A step of several ranks as a picture: when each layer was computed, and each bucket of gradients all-reduced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from minialex.figures import pictures
from minialex.figures.bench import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUM, WAITING = "#3f4a54", "#f0e4c8"
NAMES = ("input", "forward", "backward", "update")
NARROW = 0.042
"""Fraction of the whole step: layers narrower than this have no name in the picture."""

Times = Mapping[str, Any]
"""A rank's times: ``"work"``, a list of what it did (``layer``, ``phase``, ``begin``, ``end``; seconds), and
``"sums"``, a list of its buckets (``begin``, ``end``, ``bytes``). A part in phase ``"reduce"`` waits for a sum."""


def picture(ranks: Sequence[Times]) -> Figure:
    """Draw two bars for each rank: what it computed and, below it, the sums in the same period."""
    from matplotlib.patches import Patch

    end = 1000 * max(part["end"] for rank in ranks for part in [*rank["work"], *rank["sums"]])
    height = 1.1 + 1.05 * len(ranks)
    with pictures.style():
        figure = pictures.blank(9.2, height)
        axes = figure.add_axes((0.11, 0.42 / height, 0.87, 1 - 0.95 / height))
        for number, rank in enumerate(ranks):
            _rank(axes, rank, 2.4 * number, end)
        axes.set_xlim(0, end)
        axes.set_ylim(2.4 * len(ranks) - 0.6, -0.6)
        axes.set_yticks([2.4 * n + lane for n in range(len(ranks)) for lane in (0, 1)],
                        [text for n in range(len(ranks)) for text in (f"rank {n}", "its sums")])  # fmt: skip
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("milliseconds since the step began", labelpad=1)
        shown = [*((COLOURS[phase], phase) for phase in NAMES), (SUM, "a bucket's sum"),
                 (WAITING, "waiting for a sum")]  # fmt: skip
        handles = [Patch(facecolor=colour, label=name) for colour, name in shown]
        figure.legend(handles=handles, ncols=len(shown), loc="upper left", bbox_to_anchor=(0.09, 1.0), frameon=False)
    return figure


def _rank(axes: Axes, rank: Times, top: float, end: float) -> None:
    for part in _together(rank["work"]):
        begin, length = 1000 * part["begin"], 1000 * (part["end"] - part["begin"])
        waits = part["phase"] == "reduce"
        colour = WAITING if waits else COLOURS.get(part["phase"], pictures.MUTED)
        axes.barh(top, length, 0.8, left=begin, color=colour, edgecolor="white", linewidth=0.4)
        if length > NARROW * end and not waits and part["phase"] != "update":
            axes.text(begin + length / 2, top, part["layer"], ha="center", va="center", color="white", fontsize=7.5)
    free = -end  # where the free space below the bar begins
    for one in rank["sums"]:
        begin, length = 1000 * one["begin"], 1000 * (one["end"] - one["begin"])
        axes.barh(top + 1, length, 0.6, left=begin, color=SUM, edgecolor="white", linewidth=0.4)
        middle, text = begin + length / 2, f"{one['bytes'] / 1e6:,.0f} MB"
        if length > 0.06 * end:
            axes.text(middle, top + 1, text, fontsize=7.5, va="center", ha="center", color="white")
        elif middle > free:
            axes.text(middle, top + 1.5, text, fontsize=7.5, va="center", ha="center", color=pictures.INK)
            free = middle + 0.06 * end


def _together(work: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Merge adjacent parts of one layer and phase, and all updates."""
    found: list[dict[str, Any]] = []
    for part in work:
        last = found[-1] if found else None
        both_update = last is not None and last["phase"] == part["phase"] == "update"
        if last is not None and (both_update or (last["layer"], last["phase"]) == (part["layer"], part["phase"])):
            last["end"] = part["end"]
        else:
            found.append(dict(part))
    return found


def words(ranks: Sequence[Times]) -> str:
    """The picture's alternative text."""
    said = []
    for number, rank in enumerate(ranks):
        backward = [part for part in rank["work"] if part["phase"] == "backward"]
        last = backward[-1]["end"] if backward else 0.0
        early = sum(one["begin"] < last for one in rank["sums"])
        said.append(f"rank {number}: {early} of {len(rank['sums'])} sums begin while it still goes backwards")
    return "A step of several ranks over time, its layers above and its sums below; " + "; ".join(said)
