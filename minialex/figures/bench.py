"""The output of ``minialex bench``: a table and a picture of the same `Timings`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from minialex.figures import pictures
from minialex.screen.formats import milliseconds, plural, readable_size
from minialex.screen.sheet import Sheet
from minialex.speed.bench import Part, Timings
from minialex.speed.roofline import Key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "input": "#8a6d1d",
    "exchange": "#7b5aa6",
    "forward": "#0069a6",
    "backward": "#b94a00",
    "update": "#3f7d3a",
}
"""Colours of the phases, in their order in a step."""

COLUMNS = ("forward", "backward", "update")
"""Phases with a column in the table; the others appear under forward."""


def table(timings: Timings) -> Sheet:
    """Layers as rows, phases as columns: milliseconds, the floor, and their ratio."""
    phases = COLUMNS if timings.kind == "train" else COLUMNS[:1]
    floors = timings.peaks is not None
    whole = sum(part.seconds for part in timings.parts)
    holders: dict[Key, Part] = {}  # the part that includes the time of a layer and phase, perhaps another layer's
    for part in timings.parts:
        holders.update(dict.fromkeys(((part.layer, part.phase), *part.includes), part))
    rows = []
    for name in layers(timings):
        own = [part for part in timings.parts if part.layer == name]
        cells = [cell for phase in phases for cell in _cells(holders, name, phase, floors)]
        rows.append([name, *cells, f"{sum(part.seconds for part in own) / whole:.1%}" if own else ""])
    total = ["sum"]
    for phase in phases:
        parts = [part for part in timings.parts if _column(part.phase) == phase]
        seconds, floor = sum(part.seconds for part in parts), sum(part.floor or 0.0 for part in parts)
        total.append(milliseconds(seconds))
        if floors:
            total += [milliseconds(floor), f"{seconds / floor:.1f}" if floor else ""]
    columns = [name for phase in phases for name in (f"{phase}, ms", *(("floor", "×") if floors else ()))]
    return Sheet("", ["layer", *columns, "share"], rows, total=[[*total, "100%"]])


def layers(timings: Timings) -> list[str]:
    """Names of all layers, in the step's order, including those without a time of their own."""
    keys = [key for part in timings.parts for key in ((part.layer, part.phase), *part.includes)]
    parts = [part for part in timings.parts if part.phase != "backward"]
    forward = [key for part in parts for key in ((part.layer, part.phase), *part.includes) if key[1] != "backward"]
    return list(dict.fromkeys(layer for layer, _ in [*forward, *keys]))


def _column(phase: str) -> str:
    return phase if phase in COLUMNS else "forward"


def _cells(holders: dict[Key, Part], name: str, phase: str, floors: bool) -> list[str]:
    """A layer's time in one phase, its floor and their ratio; or the part that includes that time."""
    keys = [key for key in holders if key[0] == name and _column(key[1]) == phase]
    own = [holders[key] for key in keys if (holders[key].layer, holders[key].phase) == key]
    if own:
        seconds, floor = sum(part.seconds for part in own), sum(part.floor or 0.0 for part in own)
        limits = [milliseconds(floor), f"{seconds / floor:.1f}"] if floor > 1e-6 else ["–", ""]
        return [milliseconds(seconds), *(limits if floors else [])]
    words = ""
    if keys:
        holder = holders[keys[0]]
        words = f"in {holder.layer if _column(holder.phase) == phase else holder.phase}"
    return [words, *(["", ""] if floors else [])]


def title(timings: Timings) -> str:
    """What was timed, in one line."""
    kind = "training step" if timings.kind == "train" else "inference"
    threads = "" if timings.threads is None else f", {plural(timings.threads, 'thread')}"
    devices = ", ".join(dict.fromkeys(timings.placement))
    return (
        f"{timings.model}, {plural(timings.columns, 'column')}: {kind}, batch {timings.batch_size}, {timings.dtype}, "
        f"on {timings.backend} ({devices}{threads})"
    )


def lines(timings: Timings) -> list[str]:
    """The lines below the table."""
    low, high = min(timings.seconds), max(timings.seconds)
    text = [
        f"whole step  {milliseconds(timings.median)} ms (median of {len(timings.seconds)}; {milliseconds(low)} to "
        f"{milliseconds(high)}), {timings.images_per_second:,.1f} images/s; the first took {timings.first:.1f} s"
    ]
    if timings.memory is not None:
        text.append(
            f"memory      {readable_size(timings.memory)} at most, weights and momentum included, "
            "beside what the program itself takes"
        )
    if timings.peaks is not None:
        floor = sum(part.floor or 0.0 for part in timings.parts)
        text.append(
            f"floor       {milliseconds(floor)} ms; the step takes {timings.median / floor:.1f} times that. Measured "
            f"peak: {timings.peaks.multiply_adds / 1e9:,.1f} billion multiply-adds/s, "
            f"{timings.peaks.bytes / 1e9:,.1f} GB/s read and written"
        )
    return text


def picture(timings: Timings) -> Figure:
    """Draw a bar for each layer, divided into its phases, and below it a thin bar as long as its floor.

    Layers whose work was fused into another one's sweep are named with it.
    """
    from matplotlib.patches import Patch

    bars = _bars(timings)
    height = 1.35 + 0.36 * len(bars)
    with pictures.style():
        figure = pictures.blank(9.2, height)
        axes = figure.add_axes((0.2, 0.5 / height, 0.68, 1 - 1.2 / height))
        longest = max(max(sum(p.seconds for p in own), sum(p.floor or 0 for p in own)) for _, own in bars)
        for n, (_, own) in enumerate(bars):
            begin = 0.0
            for part in own:
                axes.barh(n - 0.1, 1000 * part.seconds, 0.46, left=begin, color=COLOURS.get(part.phase, pictures.MUTED))
                begin += 1000 * part.seconds
            text = milliseconds(begin / 1000)
            if timings.peaks is not None:
                end = 0.0
                for part in own:
                    length = 1000 * (part.floor or 0.0)
                    colour = COLOURS.get(part.phase, pictures.MUTED)
                    axes.barh(n + 0.26, length, 0.16, left=end, color=colour, alpha=0.5)
                    end += length
                if end > 1e-3:
                    text += f"  ({begin / end:.1f} × floor)"
            axes.annotate(
                text, (begin, n - 0.1), (4, 0), textcoords="offset points", va="center", fontsize=8.5,
                color=pictures.MUTED,
            )  # fmt: skip
        axes.set_yticks(range(len(bars)), [name for name, _ in bars], fontsize=9)
        axes.tick_params(axis="y", length=0, labelcolor=pictures.INK)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.set_xlim(0, 1000 * longest * 1.16)
        axes.set_xlabel("milliseconds" + (" (thin bars: floor)" if timings.peaks is not None else ""))
        axes.grid(axis="x", color=pictures.GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        present = [phase for phase in COLOURS if any(part.phase == phase for part in timings.parts)]
        figure.legend(
            handles=[Patch(color=COLOURS[phase], label=phase) for phase in present], loc="upper right", frameon=False,
            ncols=len(present), fontsize=9, bbox_to_anchor=(1.0, 1 - 0.36 / height), borderaxespad=0.0,
            handlelength=1.2, columnspacing=1.2,
        )  # fmt: skip
        figure.text(0.02, 1 - 0.28 / height, title(timings), fontsize=10.5, weight="bold")
        figure.text(
            0.02, 1 - 0.5 / height,
            f"{milliseconds(timings.median)} ms a step, {timings.images_per_second:,.1f} images/s",
            fontsize=9.5, color=pictures.MUTED,
        )  # fmt: skip
    return figure


def _bars(timings: Timings) -> list[tuple[str, Sequence[Part]]]:
    """Layers with a time of their own: each one's label, and its parts in the order of the phases."""
    order = [*COLOURS]
    bars: list[tuple[str, Sequence[Part]]] = []
    for name in layers(timings):
        own = [part for part in timings.parts if part.layer == name]
        if not own:
            continue
        own.sort(key=lambda part: order.index(part.phase) if part.phase in order else len(order))
        inside = {layer for layer, _ in own[0].includes}
        others = [layer for layer in layers(timings) if layer in inside and layer != name]
        bars.append((f"{name} + {', '.join(others[:2])}{' …' if len(others) > 2 else ''}" if others else name, own))
    return bars
