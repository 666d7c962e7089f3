"""What `minialex bench` shows: a table for the terminal and a picture, both of the same `Timings`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from minialex.speed.bench import Part, Timings
from minialex.speed.floors import Key
from minialex.storage.atomic import readable_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PHASES = ("input", "exchange", "forward", "backward", "update")
COLOURS = {
    "input": "#8a6d1d",
    "exchange": "#7b5aa6",
    "forward": "#0069a6",
    "backward": "#b94a00",
    "update": "#3f7d3a",
}
SHOWN = ("forward", "backward", "update")
TWICE = 2.0  # times its floor: beyond, a part is marked


def milliseconds(seconds: float) -> str:
    """A time as text with about three digits: ``"0.12"``, ``"12.3"``, ``"1,230"``."""
    value = 1000 * seconds
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def layers(timings: Timings) -> list[str]:
    """Names of all layers in the order in which the step meets them, those without a time of their own too."""
    names = [name for part in timings.parts for name in (part.layer, *(layer for layer, _ in part.includes))]
    forward = [
        name
        for part in timings.parts
        if part.phase != "backward"
        for name in (part.layer, *(layer for layer, phase in part.includes if phase != "backward"))
    ]
    return list(dict.fromkeys([*forward, *names]))


def holders(timings: Timings) -> dict[Key, Part]:
    """The part that has the time of each layer and phase, which may be another's."""
    found: dict[Key, Part] = {}
    for part in timings.parts:
        found.update(dict.fromkeys(((part.layer, part.phase), *part.includes), part))
    return found


def table(timings: Timings) -> Table:
    """Layers down, phases across: milliseconds, the floor, and how many times the floor that is."""
    shown = Table(highlight=False)
    shown.add_column("layer")
    phases = SHOWN if timings.kind == "train" else SHOWN[:1]
    for phase in phases:
        shown.add_column(f"{phase}, ms", justify="right")
        if timings.peaks is not None:
            shown.add_column("floor", justify="right")
            shown.add_column("×", justify="right")
    shown.add_column("share", justify="right")
    whole = sum(part.seconds for part in timings.parts)
    held = holders(timings)
    for name in layers(timings):
        own = [part for part in timings.parts if part.layer == name]
        row = [name]
        for phase in phases:
            row += _cells(held, name, phase, timings.peaks is not None)
        share = sum(part.seconds for part in own) / whole
        row.append(f"{share:.1%}" if own else "")
        shown.add_row(*row)
    shown.add_section()
    row = ["sum"]
    for phase in phases:
        chosen = [part for part in timings.parts if _column(part.phase) == phase]
        row.append(milliseconds(sum(part.seconds for part in chosen)))
        if timings.peaks is not None:
            floor = sum(part.floor or 0.0 for part in chosen)
            row += [milliseconds(floor), f"{sum(part.seconds for part in chosen) / floor:.1f}" if floor else ""]
    shown.add_row(*row, "100%")
    return shown


def _column(phase: str) -> str:
    """Exchange and input stand under forward."""
    return phase if phase in SHOWN else "forward"


def _cells(held: dict[Key, Part], name: str, phase: str, floors: bool) -> list[str]:
    keys = [key for key in held if key[0] == name and _column(key[1]) == phase]
    own = [held[key] for key in keys if held[key].layer == name and held[key].phase == key[1]]
    if own:
        seconds = sum(part.seconds for part in own)
        cells = [milliseconds(seconds)]
        if floors:
            floor = sum(part.floor or 0.0 for part in own)
            far = f"{seconds / floor:.1f}" if floor > 1e-6 else ""
            cells += [milliseconds(floor) if floor > 1e-6 else "–", far]
        return cells
    told = ""
    if keys:
        holder = held[keys[0]]
        told = f"in {holder.layer}" if _column(holder.phase) == phase else f"in {holder.phase}"
    return [told, "", ""] if floors else [told]


def title(timings: Timings) -> str:
    """What was timed, in one line."""
    kind = "training step" if timings.kind == "train" else "inference"
    columns = f"{timings.columns} column{'s' if timings.columns > 1 else ''}"
    threads = "" if timings.threads is None else f", {timings.threads} thread{'s' if timings.threads > 1 else ''}"
    places = ", ".join(dict.fromkeys(timings.placement))
    return (
        f"{timings.model}, {columns}: {kind}, batch {timings.batch_size}, {timings.dtype}, on {timings.backend} "
        f"({places}{threads})"
    )


def lines(timings: Timings) -> list[str]:
    """What stands below the table."""
    low, high = min(timings.seconds), max(timings.seconds)
    said = [
        f"whole step  {milliseconds(timings.median)} ms (median of {len(timings.seconds)}; {milliseconds(low)} to "
        f"{milliseconds(high)}), {timings.images_per_second:,.1f} images/s; the first took {timings.first:.1f} s"
    ]
    if timings.memory is not None:
        said.append(
            f"memory      {readable_size(timings.memory)} at most, weights and momentum included, "
            "beside what the program itself takes"
        )
    if timings.peaks is not None:
        floor = sum(part.floor or 0.0 for part in timings.parts)
        said.append(
            f"floor       {milliseconds(floor)} ms; the step takes {timings.median / floor:.1f} times that. Measured "
            f"peak: {timings.peaks.multiply_adds / 1e9:,.1f} billion multiply-adds/s, "
            f"{timings.peaks.bytes / 1e9:,.1f} GB/s read and written"
        )
    return said


def picture(timings: Timings) -> Figure:
    """Draw a bar a layer, its phases one after another, and under it a thin bar as long as its floor.

    Layers whose work another one has done in the same sweep are named with it.
    """
    from matplotlib.patches import Patch

    from minialex.figures import pictures

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
        present = [phase for phase in PHASES if any(part.phase == phase for part in timings.parts)]
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
    """Layers with a time of their own, each with its parts in the order of the phases, and how it is called."""
    bars: list[tuple[str, Sequence[Part]]] = []
    for name in layers(timings):
        own = [part for part in timings.parts if part.layer == name]
        own.sort(key=lambda part: PHASES.index(part.phase) if part.phase in PHASES else len(PHASES))
        if not own:
            continue
        with_it = [layer for layer in layers(timings) if all(_has(part, layer) for part in own[:1]) and layer != name]
        label = name if not with_it else f"{name} + {', '.join(with_it[:2])}{' …' if len(with_it) > 2 else ''}"
        bars.append((label, own))
    return bars


def _has(part: Part, layer: str) -> bool:
    return any(name == layer for name, _ in part.includes)
