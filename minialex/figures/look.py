"""Pictures of the results of `minialex.look`, in the style of `minialex.figures.pictures`, without pyplot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minialex.figures.pictures import (
    ACROSS,
    BLUE,
    GRID,
    INK,
    MUTED,
    ORANGE,
    blank,
    caption,
    draw_kernels,
    kernel_tiles,
    name_of,
    panel,
    show_image,
    style,
    text_at,
)
from minialex.look.gradients import Maximised, Saliency
from minialex.look.kernels import Difference
from minialex.look.neighbours import Neighbours
from minialex.look.sensitivity import Occlusion, Translation
from minialex.look.units import Excitation, ReceptiveField
from minialex.screen.formats import clip, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Float = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]

MOST_MAPS = 512  # of a layer, that are drawn
NAMED_CLASSES = 20  # up to this many classes, a map names them
RANDOM_COLOUR = 2 / 3  # the colour selectivity of random weights, on average


def kernels(weights: Float, scores: Float, columns: int, difference: Difference | None) -> Figure:
    """Draw the first layer's kernels by column, and below them each column's colour selectivities.

    Args:
        weights: float [K,3,R,S], the kernels of column 1 first
        scores: float [K], their colour selectivities
        columns: number of columns
        difference: the test of whether the columns differ; None if there is only one column
    """
    left, above = 0.15, 0.34  # inches
    tiles, height = kernel_tiles(weights, columns, above)
    plot = 0.42 * columns + 0.25
    with style():
        figure = blank(ACROSS + 2 * left, height + plot + 1.15)
        draw_kernels(figure, tiles, weights, left, above)
        _draw_scores(panel(figure, 0.85, 0.5, ACROSS - 0.75, plot), scores, columns, difference)
    return figure


def _draw_scores(axes: Axes, scores: Float, columns: int, difference: Difference | None) -> None:
    for n, part in enumerate(np.split(scores, columns)):
        known = part[np.isfinite(part)]
        axes.scatter(known, np.full(len(known), n), marker="|", s=150, linewidths=1.2, color=BLUE, alpha=0.6)
        if len(known):
            mean = float(known.mean())
            axes.scatter([mean], [n], marker="D", s=28, color=ORANGE, zorder=3)
            axes.annotate(
                f"mean {mean:.2f}", (mean, n), (0, 9), textcoords="offset points", ha="center", fontsize=8, color=ORANGE
            )
    axes.axvline(RANDOM_COLOUR, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(columns - 0.4, -0.75)
    axes.set_yticks(range(columns), [f"column {n + 1}" for n in range(columns)])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("colour selectivity: 0 grey, 1 colour alone; dotted: the mean of random weights")
    title = "the kernels' colour selectivity"
    if difference is not None:
        title += f"; between the columns η² = {difference.statistic:.2f}, p = {difference.p_value:.2g}"
    caption(axes, title, pad=10)


def activations(image: Image, output: Float, layer: str, columns: int) -> Figure:
    """Draw an image and a layer's output for it: every channel's map, or every neuron as a square, by column.

    All maps share one scale, the layer's: white is 0, blue positive, orange negative.

    Args:
        image: uint8 [3,h,w], the network's input
        output: float [C,H,W] or [D]; if there are more than 512 channels, the first 512 are drawn
        layer: name of the layer
        columns: number of columns that the channels are divided into, those of column 1 first
    """
    if output.ndim == 1:  # neurons in rows, about three times as wide as high, one map per column
        D = len(output) // columns
        ideal = max(1, math.isqrt(max(1, D // 3)))
        rows = max((n for n in range((ideal + 1) // 2, ideal + 1) if D % n == 0), default=ideal)
        padded = np.full((columns, rows * math.ceil(D / rows)), np.nan)
        padded[:, :D] = output.reshape(columns, D)
        blocks = [part.reshape(1, rows, -1) for part in padded]
        share, size = D, "neurons"
    else:
        share = min(len(output), MOST_MAPS) // columns
        blocks = [part[:share] for part in np.split(output, columns)]
        size = f"maps of {output.shape[1]} × {output.shape[2]}"
    sheets = [_sheet(block) for block in blocks]
    across, side, gap = 7.0, 1.7, 0.3
    heights = [across * sheet.shape[0] / sheet.shape[1] for sheet in sheets]
    height = max(sum(heights) + gap * columns + 0.95, side + 0.9)
    width = side + across + 0.65
    limit = float(np.nanmax(np.abs(output), initial=0)) or 1.0
    with style():
        figure = blank(width, height)
        axes = panel(figure, 0.15, height - side - 0.4, side, side)
        show_image(axes, image)
        caption(axes, "what the network sees")
        top = height - 0.1
        for n, (sheet, tall) in enumerate(zip(sheets, heights, strict=True)):
            top -= tall + gap
            axes = panel(figure, side + 0.45, top, across, tall)
            shown_sheet = axes.imshow(sheet, cmap=_two_hues(), vmin=-limit, vmax=limit, interpolation="nearest")
            axes.set_facecolor(GRID)
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            first = n * len(output) // columns
            where = f", column {n + 1}" if columns > 1 else ""
            caption(axes, f"{layer}{where}: {size}, {first} to {first + share - 1}")
        low = float(np.nanmin(output))
        _scale(figure, shown_sheet, (side + 0.45, top - 0.32, 2.6), min(low, 0.0), limit, "activation", 1)
    return figure


def occlusion(image: Image, result: Occlusion, class_names: Sequence[str]) -> Figure:
    """Draw an image, and over it how far the class's probability falls when each place is covered.

    Args:
        image: uint8 [3,h,w], the crop that the network saw
    """
    side, width, height = 3.2, 7.4, 4.45
    drop = result.drop(image.shape[1])
    limit = float(np.nanmax(np.abs(drop), initial=0)) or 1.0
    label = clip(name_of(class_names, result.label), 40)
    with style():
        figure = blank(width, height)
        for n, title in enumerate((f"{label}: {percent(result.whole)}", "covered here, it falls by")):
            axes = panel(figure, 0.3 + n * (side + 0.4), 0.85, side, side)
            show_image(axes, image if n == 0 else _grey(image))
            caption(axes, title)
            if n == 0:
                _square(axes, 0, 0, result.size, result.size, "the covering square")
        shown = axes.imshow(drop, cmap=_two_hues(), vmin=-limit, vmax=limit, alpha=0.72, interpolation="nearest")
        low = float(np.nanmin(drop))
        name = "fall of the probability, percentage points"
        _scale(figure, shown, (0.3 + side + 0.4, 0.55, side), min(low, 0.0), limit, name, 100)
    return figure


def saliency(image: Image, result: Saliency, class_names: Sequence[str]) -> Figure:
    """Draw an image, and beside it how much the class's logit depends on each pixel.

    Args:
        image: uint8 [3,h,w], the crop that the network saw
    """
    side, width, height = 3.2, 7.4, 4.45
    limit = float(result.map.max()) or 1.0
    label = clip(name_of(class_names, result.label), 40)
    with style():
        figure = blank(width, height)
        axes = panel(figure, 0.3, 0.85, side, side)
        show_image(axes, image)
        caption(axes, f"{label}: {percent(result.probability)}")
        axes = panel(figure, 0.7 + side, 0.85, side, side)
        shown = axes.imshow(result.map, cmap=_two_hues(), vmin=-limit, vmax=limit, interpolation="nearest")
        axes.axis("off")
        caption(axes, "the class's logit leans on")
        name = "gradient's magnitude, largest of three colours"
        _scale(figure, shown, (0.7 + side, 0.55, side), 0.0, limit, name, 1)
    return figure


def translation(samples: Sequence[Image], result: Translation, class_names: Sequence[str]) -> Figure:
    """Draw images at the extremes of the shifts, and how often the class is right at each shift.

    Args:
        samples: nine shifted crops, uint8 [3,h,w], at the ends and the middle of the shifts, row by row
    """
    side, width, height = 3.0, 10.9, 3.85
    one = len(result.labels) == 1
    label = name_of(class_names, int(result.labels[0]))
    maps = (
        ("the class's probability, %", result.probabilities.mean(axis=0)),
        ("is the class in the top five? 100: yes" if one else "images whose class is in the top five, %",
         result.within(5)),
    )  # fmt: skip
    with style():
        figure = blank(width, height)
        small = side / 3
        for n, sample in enumerate(samples):
            axes = panel(figure, 0.2 + n % 3 * small, 0.55 + (2 - n // 3) * small, small * 0.95, small * 0.95)
            show_image(axes, sample)
            if n == 0:
                caption(axes, clip(label, 34) if one else f"one of {len(result.labels)} images")
        for n, (title, values) in enumerate(maps):
            axes = panel(figure, side + 0.95 + n * (side + 0.6), 0.55, side, side)
            axes.imshow(values, cmap=_two_hues(), vmin=-1, vmax=1, interpolation="nearest")
            caption(axes, title)
            ticks = range(0, len(result.shifts), max(1, (len(result.shifts) - 1) // 4))
            names = [f"{result.shifts[k]:+d}" if result.shifts[k] else "0" for k in ticks]
            axes.set_xticks(ticks, names)
            axes.set_yticks(ticks, names)
            axes.tick_params(length=0)
            axes.spines[:].set_visible(False)
            axes.set_xlabel("moved to the right, pixels")
            if n == 0:
                axes.set_ylabel("moved down, pixels")
            if len(result.shifts) <= 11:
                for i, j in np.ndindex(values.shape):
                    colour = "white" if values[i, j] > 0.68 else INK
                    text = f"{100 * values[i, j]:.0f}"
                    axes.text(j, i, text, ha="center", va="center", fontsize=7.5, color=colour)
    return figure


def excitation(
    crops: Sequence[Sequence[Image]],
    result: Excitation,
    field: tuple[ReceptiveField, ReceptiveField] | None,
    columns: int,
    width_of_layer: int,
) -> Figure:
    """Draw, for each unit, the images that excite it most, its receptive field framed, and enlarged below.

    Args:
        crops: each unit's images, uint8 [3,h,w], most exciting first
        field: receptive fields along rows and columns; None: the units see the whole image
        columns: number of columns of the layer
        width_of_layer: its number of units
    """
    U, n = result.images.shape
    cell, gap, margin, above = 0.95, 0.07, 1.15, 0.4
    tall = (2 if field else 1) * (cell + gap) + 0.3
    width, height = margin + n * (cell + gap) + 0.1, above + U * tall
    with style():
        figure = blank(width, height)
        figure.text(0.1 / width, 1 - 0.12 / height, _title_of(result, field), va="top", color=MUTED, fontsize=9)
        for u in range(U):
            top = height - above - u * tall
            unit = result.units[u]
            words = f"unit {unit}"
            if columns > 1:
                words += f"\ncolumn {unit * columns // width_of_layer + 1}"
            figure.text(0.1 / width, (top - 0.12) / height, words, va="top", fontsize=9, linespacing=1.4)
            for k in range(n):
                left = margin + k * (cell + gap)
                axes = panel(figure, left, top - cell, cell, cell)
                image = crops[u][k]
                show_image(axes, image)
                low = top - cell
                if field:
                    places = (int(result.rows[u, k]), int(result.columns[u, k]))
                    spans = [f.of(p, s) for f, p, s in zip(field, places, image.shape[1:], strict=True)]
                    (y0, y1), (x0, x1) = spans
                    _square(axes, x0, y0, x1 - x0, y1 - y0)
                    low -= cell + gap
                    axes = panel(figure, left, low, cell, cell)
                    show_image(axes, image[:, y0:y1, x0:x1])
                    axes.set_anchor("N")
                _below(axes, -0.03, f"{result.values[u, k]:.3g}")
    return figure


def maximised(
    result: Maximised,
    field: tuple[ReceptiveField, ReceptiveField] | None,
    columns: int,
    width_of_layer: int,
    names: Sequence[str],
) -> Figure:
    """Draw the images made for units; those of channels are cropped to the receptive field.

    Args:
        field: receptive fields along rows and columns; None: the units see the whole image
        columns: number of columns of the layer
        width_of_layer: its number of units
        names: names of the units, "" for those without one
    """
    U = len(result.units)
    rows, cell, gap, below = math.ceil(U / 8), 1.15, 0.1, 0.5
    across = math.ceil(U / rows)
    width, height = max(across * (cell + gap) + 0.2, 5.6), 0.4 + rows * (cell + below)
    sees = "the whole image" if field is None else f"{field[0].size} × {field[1].size} pixels"
    with style():
        figure = blank(width, height)
        title = f"{result.layer}: images made to excite a unit; each sees {sees}"
        figure.text(0.1 / width, 1 - 0.12 / height, title, va="top", color=MUTED, fontsize=9)
        for n, (unit, image, value) in enumerate(zip(result.units, result.images, result.after, strict=True)):
            row, place = divmod(n, across)
            bottom = height - 0.4 - row * (cell + below) - cell
            axes = panel(figure, 0.1 + place * (cell + gap), bottom, cell, cell)
            spans = [(0, length) for length in image.shape[1:]]
            if field and result.place:
                spans = [f.of(p, s) for f, p, s in zip(field, result.place, image.shape[1:], strict=True)]
            show_image(axes, image[:, slice(*spans[0]), slice(*spans[1])])
            column = f", column {unit * columns // width_of_layer + 1}" if columns > 1 else ""
            name = clip(names[n], 20) or f"unit {unit}{column}"
            _below(axes, -0.03, name, fontsize=8, color=INK)
            _below(axes, -0.17, f"{value:.3g}")
    return figure


def _title_of(result: Excitation, field: tuple[ReceptiveField, ReceptiveField] | None) -> str:
    sees = "the whole image" if field is None else f"{field[0].size} × {field[1].size} pixels"
    return f"{result.layer}: the images that excite a unit most, and by how much; each unit sees {sees}"


def neighbours(
    queries: Sequence[Image],
    query_names: Sequence[str],
    images: Sequence[Sequence[Image]],
    result: Neighbours,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
) -> Figure:
    """Draw images, and to the right of each its nearest neighbours in feature space: the paper's figure 4, right.

    Args:
        queries, query_names: uint8 [3,S,S], and the text below each
        images: the neighbours of each, nearest first
        labels: int64 [Q,k], classes of the neighbours
    """
    Q, k = result.images.shape
    side, gap, below = 1.25, 0.08, 0.42
    width, height = 0.2 + (k + 1) * (side + gap) + 0.3, 0.35 + Q * (side + below)
    with style():
        figure = blank(width, height)
        figure.text(0.12 / width, 1 - 0.1 / height, "image", va="top", color=MUTED, fontsize=9)
        text = "nearest training images, with their distances in the features"
        figure.text((0.42 + side + gap) / width, 1 - 0.1 / height, text, va="top", color=MUTED, fontsize=9)
        for q in range(Q):
            bottom = height - 0.35 - q * (side + below) - side
            for n in range(k + 1):
                left = 0.12 + n * (side + gap) + (0.3 if n else 0)
                axes = panel(figure, left, bottom, side, side)
                show_image(axes, queries[q] if n == 0 else images[q][n - 1])
                name = clip(query_names[q], 16) if n == 0 else clip(name_of(class_names, int(labels[q, n - 1])), 20)
                _below(axes, -0.03, name, fontsize=8, color=INK, weight="bold" if n == 0 else "normal")
                if n:
                    _below(axes, -0.17, f"{result.distances[q, n - 1]:.3g}")
    return figure


def flat_map(
    images: Sequence[Image], places: Float, labels: NDArray[np.int64], class_names: Sequence[str], layer: str
) -> Figure:
    """Draw images at their places on a map, and each class's name in the middle of its images.

    Each image is moved to the nearest free cell of a grid, so that none covers another.

    Args:
        images: uint8 [N][3,S,S]
        places: float [N,2]
        labels: int64 [N]
        layer: the layer of the features
    """
    side = 7.2
    cells = math.ceil(1.5 * math.sqrt(len(images)))
    low, high = places.min(axis=0), places.max(axis=0)
    across = (places - low) / np.where(high > low, high - low, 1) * (cells - 1)
    free = np.stack(np.meshgrid(np.arange(cells), np.arange(cells)), axis=-1).reshape(-1, 2)
    at = np.empty_like(across)
    for n, place in enumerate(across):
        near = ((free - place) ** 2).sum(axis=1).argmin()
        at[n], free = free[near], np.delete(free, near, axis=0)
    with style():
        figure = blank(side + 0.2, side + 0.5)
        axes = panel(figure, 0.1, 0.1, side, side)
        for image, (x, y) in zip(images, at, strict=True):
            extent = (x - 0.47, x + 0.47, y - 0.47, y + 0.47)
            axes.imshow(np.moveaxis(image, 0, 2), extent=extent, interpolation="antialiased")
        axes.set_xlim(-0.6, cells - 0.4)
        axes.set_ylim(-0.6, cells - 0.4)
        axes.axis("off")
        named: list[Float] = []
        for label in np.unique(labels) if len(class_names) <= NAMED_CLASSES else ():
            x, y = np.median(at[labels == label], axis=0)
            while any(abs(x - a) < cells / 7 and abs(y - b) < cells / 26 for a, b in named):
                y += cells / 26  # keeps names from covering each other
            named.append(np.array([x, y]))
            box = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            axes.text(x, y, clip(name_of(class_names, int(label)), 20), ha="center", va="center", fontsize=9, bbox=box)
        caption(axes, f"{len(images)} images, laid out by what {layer} finds alike")
    return figure


# ---- parts -------------------------------------------------------------------------------------------------------


def _below(axes: Axes, y: float, text: str, **how: Any) -> None:
    """Write a centred line below an image; `y` is a fraction of its side."""
    text_at(axes, 0.5, y, text, ha="center", va="top", **{"fontsize": 7.5, "color": MUTED, **how})


def _grey(image: Image) -> Image:
    grey = np.rint(255 - (255 - image.mean(axis=0)) * 0.8).astype(np.uint8)
    return np.repeat(grey[None], 3, axis=0)


def _square(axes: Axes, x: int, y: int, w: int, h: int, text: str = "") -> None:
    """Frame some pixels, in white on black so that the frame shows on any image."""
    from matplotlib.patches import Rectangle

    for colour, line in (("black", 2.4), ("white", 1.1)):
        frame = Rectangle((x - 0.5, y - 0.5), w, h, fill=False, edgecolor=colour, linewidth=line, clip_on=False)
        axes.add_patch(frame)
    if text:
        axes.annotate(
            text, (x, y + h), (3, -3), textcoords="offset points", va="top", fontsize=7.5, color=INK,
            bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def _sheet(maps: Float) -> NDArray[np.float64]:
    """Maps [C,H,W] side by side on a grid about three times as wide as high; gaps are NaN."""
    C, H, W = maps.shape
    across = max(1, min(C, round(math.sqrt(3 * C * H / W))))
    across = next((n for n in range(across, min(C, 2 * across)) if C % n == 0), across)
    gap = max(1, round(W / 16)) if C > 1 else 0
    sheet = np.full((math.ceil(C / across) * (H + gap) - gap, across * (W + gap) - gap), np.nan)
    for c in range(C):
        y, x = c // across * (H + gap), c % across * (W + gap)
        sheet[y : y + H, x : x + W] = maps[c]
    return sheet


def _two_hues() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("minialex", [ORANGE, "#ffffff", BLUE])


def _scale(
    figure: Figure, shown: Any, place: tuple[float, float, float], low: float, high: float, name: str, factor: int
) -> None:
    """Draw the colour scale: a bar from the lowest value to the highest, its numbers multiplied by a factor."""
    from matplotlib.ticker import FuncFormatter

    axes = panel(figure, *place, 0.1)
    figure.colorbar(shown, cax=axes, orientation="horizontal", label=name)
    axes.set_xlim(low, high)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{factor * value:.3g}"))
    axes.tick_params(labelsize=8)
