"""Pictures of a run: learning curves, the first layer's kernels, the confusion matrix, predictions.

Every function returns a `matplotlib.figure.Figure`, made without pyplot: no window, no global state, any thread.
matplotlib is imported when the first picture is drawn. Blue is validation and right, orange is training and wrong:
two hues of different lightness that colour-blind readers can tell apart; a label always repeats what a hue means.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minialex.screen.formats import clip, percent, plain
from minialex.storage import atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from minialex.evaluation.calibration import Calibration

Float = NDArray[np.floating[Any]]

INK = "#1c2126"
MUTED = "#5d6873"
GRID = "#dde2e6"
BLUE = "#0069a6"
ORANGE = "#b94a00"
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,  # dollar signs in names are dollars, not formulas
    "svg.fonttype": "none",  # text stays text
}

RECORDS_DRAWN = 300  # points of a training curve; more are averaged
CUTS_MARKED = 8  # a rate that changes more often is a continuous schedule, not cuts
RATES_SHOWN = 3  # named below the axis
NUMBERED_CLASSES = 20  # up to this many classes, cells of the confusion matrix have numbers
MATRIX_CLASSES = 100  # beyond this, pairs are listed instead
PAIRS = 20
TOP = 5
EXAMPLES = 100
SMALL_IMAGE = 64  # pixels; up to this size they are shown as squares
ACROSS = 6.4  # width of the kernels' picture, inches


def curves(metrics: Sequence[Mapping[str, Any]], classes: int | None = None) -> Figure:
    """Draw loss (left) and error (right) against epochs, for training and validation.

    Args:
        metrics: records of a run: ``{"kind": "train", "epoch", "loss", "top1", "learning_rate", …}`` with the accuracy
            ``top1`` in 0..1 and ``{"kind": "validation", "epoch", "loss", "top1_error", "top5_error", …}`` with errors
            in 0..1; missing, None and non-finite numbers are left out
        classes: number of classes; the level of guessing is drawn as a line
    """
    with style():
        figure = blank(10.8, 3.9)
        left, right = figure.subplots(1, 2, gridspec_kw=_margins(10.8, 3.9, between=1.75))
        _draw_loss(left, metrics, classes)
        _draw_error(right, metrics, classes)
    return figure


def loss_curve(metrics: Sequence[Mapping[str, Any]], classes: int | None = None) -> Figure:
    """Draw the left half of `curves` alone, small."""
    return _half(_draw_loss, metrics, classes)


def error_curve(metrics: Sequence[Mapping[str, Any]], classes: int | None = None) -> Figure:
    """Draw the right half of `curves` alone, small."""
    return _half(_draw_error, metrics, classes)


def _half(draw: Callable[..., None], metrics: Sequence[Mapping[str, Any]], classes: int | None) -> Figure:
    with style():
        figure = blank(4.1, 2.9)
        draw(figure.subplots(gridspec_kw=_margins(4.1, 2.9)), metrics, classes)
    return figure


def kernels(weights: Float, columns: int) -> Figure:
    """Draw the kernels of a convolution, one block per column: figure 3 of the paper.

    Args:
        weights: float [K,C,R,S], the kernels of column 1 first; with C = 3 as colours, else the mean over channels in
            grey
        columns: number of columns
    """
    tiles, height = kernel_tiles(weights, columns, 0.32)
    with style():
        figure = blank(6.6, height + 0.1)
        draw_kernels(figure, tiles, weights, 0.1, 0.32)
    return figure


def kernel_tiles(weights: Float, columns: int, above: float) -> tuple[list[NDArray[np.uint8]], float]:
    """Each column's kernels on a grid, and their total height in inches, with room for titles above them."""
    tiles = [tile_kernels(part) for part in np.array_split(weights, columns)]
    return tiles, sum(ACROSS * grid.shape[0] / grid.shape[1] for grid in tiles) + above * columns


def draw_kernels(figure: Figure, tiles: Sequence[NDArray[np.uint8]], weights: Float, left: float, above: float) -> None:
    """Draw kernels from the top of a figure downwards, one block per column."""
    _, C, R, S = weights.shape
    bottom = float(figure.get_size_inches()[1])
    for n, (grid, part) in enumerate(zip(tiles, np.array_split(weights, len(tiles)), strict=True)):
        tall = ACROSS * grid.shape[0] / grid.shape[1]
        bottom -= tall + above
        axes = panel(figure, left, bottom, ACROSS, tall)
        axes.imshow(grid, interpolation="nearest")
        axes.axis("off")
        where = f"column {n + 1}: " if len(tiles) > 1 else ""
        caption(axes, f"{where}{len(part)} kernels, {R} × {S} × {C}")


def tile_kernels(block: Float) -> NDArray[np.uint8]:
    """Lay out kernels on a grid, each scaled to the full range over all its channels.

    Args:
        block: float [K,C,R,S]

    Returns:
        uint8 [rows,across,4] : red, green, blue, opacity; gaps and non-finite weights are transparent
    """
    K, _, R, S = block.shape
    block = block.astype(np.float64)
    if block.shape[1] != 3:
        block = np.repeat(block.mean(axis=1, keepdims=True), 3, axis=1)
    finite = np.isfinite(block)
    low = np.where(finite, block, np.inf).min(axis=(1, 2, 3), keepdims=True, initial=np.inf)
    high = np.where(finite, block, -np.inf).max(axis=(1, 2, 3), keepdims=True, initial=-np.inf)
    with np.errstate(all="ignore"):
        scaled = np.where(high > low, (block / 2 - low / 2) / (high / 2 - low / 2), 0.5)  # halving avoids overflow
    across = max(1, min(K, 16 if K >= 32 else 8))
    zoom = max(1, round(11 / max(R, 1)))  # so that the gap of one pixel is narrow even beside small kernels
    scaled, finite = (a.repeat(zoom, axis=2).repeat(zoom, axis=3) for a in (scaled, finite))
    R, S, gap = R * zoom, S * zoom, 1
    canvas = np.zeros((math.ceil(K / across) * (R + gap) - gap, across * (S + gap) - gap, 4), np.uint8)
    for k in range(K):
        y, x = k // across * (R + gap), k % across * (S + gap)
        canvas[y : y + R, x : x + S, :3] = np.rint(np.where(finite[k], scaled[k], 0) * 255).transpose(1, 2, 0)
        canvas[y : y + R, x : x + S, 3] = finite[k].all(axis=0) * 255
    return canvas


def confusion(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    """Draw which class (row) was predicted as which (column), as shares of the row.

    Right answers are blue, wrong ones orange; opacity grows with the square root of the share, so that rare
    confusions show. Beyond `MATRIX_CLASSES` classes the most confused pairs are drawn as bars.

    Args:
        matrix: int64 [K,K], images of each true class (row) that were given each class (column)
        class_names: K names; if there are fewer, numbers replace the missing ones
    """
    with style():
        return _draw_pairs(matrix, class_names) if len(matrix) > MATRIX_CLASSES else _draw_matrix(matrix, class_names)


def most_confused(matrix: NDArray[np.int64], count: int) -> list[tuple[int, int, int, float]]:
    """Return the pairs of classes with most errors: true class, predicted class, images, share of the true class."""
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    totals = matrix.sum(axis=1)
    pairs = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:count]:
        true, given = divmod(int(place), len(matrix))
        images = int(wrong[true, given])
        if images:
            pairs.append((true, given, images, images / int(totals[true])))
    return pairs


def reliability(measured: Calibration) -> Figure:
    """Draw accuracy against confidence, bin by bin, above each bin's number of images: a reliability diagram.

    On the diagonal, probabilities are calibrated. A bin's lack of accuracy is orange, its excess is hatched.

    Args:
        measured: see `minialex.evaluation.calibration.calibration`
    """
    wide = np.diff(measured.edges)
    left, filled = measured.edges[:-1], measured.images > 0
    with style():
        figure = blank(4.6, 5.4)
        top, bottom = figure.subplots(
            2, 1, sharex=True, height_ratios=(3.2, 1), gridspec_kw={
                "left": 0.13, "right": 0.96, "top": 0.94, "bottom": 0.09, "hspace": 0.12}
        )  # fmt: skip
        accuracy, confidence = (np.where(filled, a, 0) for a in (measured.accuracy, measured.confidence))
        bars = {"width": wide, "align": "edge", "linewidth": 0.6, "edgecolor": "white"}
        top.bar(left, accuracy, color=BLUE, label="right", **bars)
        lacking = np.maximum(confidence - accuracy, 0)
        top.bar(left, lacking, bottom=accuracy, color=ORANGE, label="too sure", **bars)
        excess = np.maximum(accuracy - confidence, 0)
        unsure = {**bars, "edgecolor": "white", "linewidth": 0}
        top.bar(left, excess, bottom=confidence, color=BLUE, hatch="////", label="not sure enough", **unsure)
        top.plot([0, 1], [0, 1], color=INK, linewidth=0.9, linestyle=(0, (4, 3)))
        top.set_xlim(0, 1)
        top.set_ylim(0, 1)
        top.set_ylabel("accuracy")
        top.set_title(
            f"expected calibration error {100 * measured.expected_error:.1f} %, "
            f"{int(measured.images.sum()):,} images", fontsize=9, color=MUTED
        )  # fmt: skip
        top.legend(frameon=False, fontsize=8, loc="upper left", labelcolor=INK)
        bottom.bar(left, measured.images, color=MUTED, **bars)
        bottom.set_ylabel("images")
        bottom.set_xlabel("confidence: probability of the most probable class")
    return figure


def predictions(
    images: NDArray[np.uint8], probs: Float, class_names: Sequence[str], labels: NDArray[np.int64] | None
) -> Figure:
    """Draw images with their label and the five most probable classes as bars: the paper's figure 4, left.

    Args:
        images: uint8 [n,3,S,S]; the first 100 are drawn
        probs: float [n,K]
        class_names: K names; if there are fewer, numbers replace the missing ones
        labels: int64 [n], or None if the truth is not known
    """
    shown = min(len(images), EXAMPLES)
    across = max(1, min(4, shown))
    rows = math.ceil(shown / across)
    top = min(TOP, probs.shape[1])
    side, below, bar, edge = 2.0, 0.34 if labels is not None else 0.1, 0.2, 0.15  # inches
    cell = (side + 0.3, side + below + bar * top + 0.3)
    width, height = max(across * cell[0] + edge, 2.6), max(rows, 1) * cell[1] + edge
    with style():
        figure = blank(width, height)
        start = (width - across * cell[0]) / 2 + 0.15
        for n in range(shown):
            x, y = start + n % across * cell[0], height - edge - n // across * cell[1]  # the cell's top left corner
            axes = panel(figure, x, y - side, side, side)
            show_image(axes, images[n])
            label = None if labels is None else int(labels[n])
            if label is not None:
                text_at(axes, 0.5, -0.045, clip(name_of(class_names, label), 24), va="top", ha="center", weight="bold")
            axes = panel(figure, x, y - side - below - bar * top, side, bar * top)
            _draw_bars(axes, probs[n], class_names, label, top)
        if len(images) > shown:
            figure.text(0.5, 0.0, f"the first {shown} of {len(images)} images", ha="center", va="bottom", color=MUTED)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG file, completely or not at all; the same figure gives the same bytes.

    Raises:
        ResourceError, ConfigurationError: As in `minialex.storage.atomic.write_bytes`.
    """
    atomic.write_bytes(path, png(figure))


def png(figure: Figure, dpi: int = 144) -> bytes:
    """Return a figure as PNG, without metadata that changes between runs."""
    return _rendered(figure, {}, format="png", dpi=dpi, metadata={"Software": None})


def svg(figure: Figure, name: str) -> str:
    """Return a figure as SVG without a background; its ids depend only on `name` and the content."""
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    return _rendered(figure, {"svg.hashsalt": name}, format="svg", transparent=True, dpi=144, metadata=none).decode()


def top_classes(probs: Float, count: int = TOP) -> list[int]:
    """Return the most probable classes of one image, most probable first; ties go to the lower number."""
    found = np.argsort(-np.nan_to_num(probs, nan=-1.0), kind="stable")
    return [int(k) for k in found[:count]]


def name_of(class_names: Sequence[str], k: int) -> str:
    """Return the name of class `k` in drawable characters, or its number if it has none."""
    name = plain(class_names[k]).strip() if k < len(class_names) else ""
    return name or f"class {k}"


def series(metrics: Sequence[Mapping[str, Any]], kind: str, field: str) -> tuple[Float, Float]:
    """Return the epochs and values of a field in the records of one kind, where both are finite."""
    pairs = [(record.get("epoch"), record.get(field)) for record in metrics if record.get("kind") == kind]
    known = [(x, y) for x, y in pairs if x is not None and y is not None and math.isfinite(x) and math.isfinite(y)]
    both = np.asarray(known, np.float64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


# ---- how they are drawn ----------------------------------------------------------------------------------------


@contextmanager
def style(settings: Mapping[str, Any] = MappingProxyType({})) -> Iterator[None]:
    """Apply the pictures' own settings, whatever the reader's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # names in a script that the font lacks become boxes
        matplotlib.rcdefaults()
        wanted: Any = {**STYLE, **settings}
        matplotlib.rcParams.update(wanted)
        yield


def blank(width: float, height: float) -> Figure:
    """An empty figure of `width` × `height` inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="white")


def panel(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a position in inches from the figure's lower left corner."""
    across, tall = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / tall, width / across, height / tall))


def caption(axes: Axes, text: str, **how: Any) -> None:
    """A small title."""
    axes.set_title(text, color=MUTED, fontsize=9, **how)


def show_image(axes: Axes, image: NDArray[np.uint8]) -> None:
    """Show an image [3,h,w] without ticks; a small one as squares."""
    small = max(image.shape[1:]) <= SMALL_IMAGE
    axes.imshow(image.transpose(1, 2, 0), interpolation="nearest" if small else "antialiased")
    axes.axis("off")


def _margins(width: float, height: float, between: float = 0.0) -> dict[str, float]:
    """Margins in inches as fractions of a grid: the labels at the lines' ends are to the right."""
    end = 1.3
    inner = (width - 0.5 - end - between) / 2
    return {
        "left": 0.5 / width,
        "right": 1 - end / width,
        "bottom": 0.48 / height,
        "top": 1 - 0.36 / height,
        "wspace": between / inner,
    }


def _rendered(figure: Figure, settings: Mapping[str, Any], **how: Any) -> bytes:
    buffer = io.BytesIO()
    with style(settings):
        figure.savefig(buffer, **how)
    return buffer.getvalue()


def text_at(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    """Write text at a position given in fractions of the axes."""
    axes.text(x, y, text, transform=axes.transAxes, **how)


def _points(axes: Axes) -> tuple[float, float]:
    """Width and height of axes in points."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    (width, height), box = figure.get_size_inches(), axes.get_position()
    return box.width * 72 * float(width), box.height * 72 * float(height)


def _draw_loss(axes: Axes, metrics: Sequence[Mapping[str, Any]], classes: int | None) -> None:
    axes.set_title("loss")
    drawn = [
        _line(axes, *series(metrics, "train", "loss"), "training", ORANGE, "{:.3g}", linewidth=1.3),
        _line(axes, *series(metrics, "validation", "loss"), "validation", BLUE, "{:.3g}", marker="o"),
    ]
    chance = math.log(classes) if classes and classes > 1 else None
    values = np.concatenate([y for _, y, _, _ in drawn])
    positive = values[values > 0]
    if len(positive) and positive.max() > 10 * max(float(np.median(positive)), chance or 0.0):
        from matplotlib.ticker import FuncFormatter, NullFormatter

        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    _finish(axes, drawn, metrics, chance, f"guessing {chance:.2f}" if chance else "")


def _draw_error(axes: Axes, metrics: Sequence[Mapping[str, Any]], classes: int | None) -> None:
    from matplotlib.ticker import FuncFormatter

    axes.set_title("error")
    epochs, top1 = series(metrics, "train", "top1")
    drawn = [
        _line(axes, epochs, 100 * (1 - top1), "training", ORANGE, "{:.1f} %", linewidth=1.3),
        _line(axes, *_percents(metrics, "top1_error"), "validation", BLUE, "{:.1f} %", marker="o"),
    ]
    if classes is None or classes > TOP:
        drawn.append(_line(axes, *_percents(metrics, "top5_error"), "top-5", BLUE, "{:.1f} %", linestyle=(0, (2, 1.2))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    chance = 100 * (1 - 1 / classes) if classes and classes > 1 else None
    _finish(axes, drawn, metrics, chance, f"guessing {chance:.1f} %" if chance else "")


def _percents(metrics: Sequence[Mapping[str, Any]], field: str) -> tuple[Float, Float]:
    epochs, errors = series(metrics, "validation", field)
    return epochs, 100 * errors


Drawn = tuple[Float, Float, str, str]


def _line(axes: Axes, x: Float, y: Float, name: str, colour: str, form: str, **how: Any) -> Drawn:
    """Draw a line, averaged if it has too many points; return it with its label and colour."""
    if len(x) > RECORDS_DRAWN:
        parts = np.array_split(np.arange(len(x)), RECORDS_DRAWN)
        x, y = np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])
    if len(x) > 40:
        how.pop("marker", None)
    elif len(x) == 1:
        how.setdefault("marker", "o")
    axes.plot(x, y, color=colour, label=name, markersize=3.5, clip_on=False, **how)
    return x, y, f"{name} {form.format(y[-1])}" if len(y) else "", colour


def _finish(
    axes: Axes, drawn: Sequence[Drawn], metrics: Sequence[Mapping[str, Any]], chance: float | None, guessing: str
) -> None:
    """Add limits, grid, the level of guessing, cuts of the learning rate, and labels outside, clear of the curves."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    drawn = [line for line in drawn if len(line[0])]
    if not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        text_at(axes, 0.5, 0.5, "no records yet", ha="center", va="center", color=MUTED)
        return
    values = np.concatenate([y for _, y, _, _ in drawn])
    last = max(float(x[-1]) for x, _, _, _ in drawn)
    axes.set_xlim(0, last if last > 0 else 1)
    if last >= 3:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if axes.get_yscale() == "linear":
        axes.set_ylim(0, max(float(values.max()), chance or 0.0, 1e-9) * 1.1)
    if chance is not None:
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
        drawn.append((np.array([last]), np.array([chance]), guessing, MUTED))
    cuts = _cuts(metrics)
    for epoch, _ in cuts:
        axes.axvline(epoch, color=MUTED, linewidth=0.8, linestyle=(0, (4, 2)))
    if cuts:  # below the axis, clear of the curves
        rates = [f"{rate:g}" for _, rate in cuts]
        shown = ", ".join(rates[:RATES_SHOWN]) + (", …" if len(rates) > RATES_SHOWN else "")
        axes.set_xlabel(f"epoch; dashed: rate {shown}")
    _label_ends(axes, drawn)


def _cuts(metrics: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    """Epochs at which the learning rate changed, with the new rate; none if it changes continuously."""
    cuts = []
    epochs, rates = series(metrics, "train", "learning_rate")
    for n in range(1, len(rates)):
        if rates[n] != rates[n - 1]:
            cuts.append((float(epochs[n - 1]), float(rates[n])))
    return cuts if len(cuts) <= CUTS_MARKED else []


def _label_ends(axes: Axes, drawn: Sequence[Drawn]) -> None:
    """Label each line at its right end, without overlaps, in the order of the ends."""
    apart = 14 / _points(axes)[1]
    to_fraction = axes.transData + axes.transAxes.inverted()
    ends = sorted((float(to_fraction.transform((x[-1], y[-1]))[1]), text, colour) for x, y, text, colour in drawn)
    heights: list[float] = []
    for wanted, _, _ in ends:
        heights.append(max(wanted, heights[-1] + apart if heights else 0.02))
    over = max(0.0, heights[-1] - 0.98)  # beyond the axes' top: push all back down
    for n in range(len(heights) - 1, -1, -1):
        heights[n] = min(heights[n], 0.98 - (len(heights) - 1 - n) * apart) if over else heights[n]
    for place, (_, text, colour) in zip(heights, ends, strict=True):
        text_at(axes, 1.03, place, text, va="center", color=colour, fontsize=9)


def _draw_matrix(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    K = len(matrix)
    few = K <= NUMBERED_CLASSES
    names = [clip(name_of(class_names, k), 16 if few else 20) for k in range(K)]
    cell, font = (0.37, 9.5) if few else (0.15, 6.6)
    margin = 0.3 + max(map(len, names), default=1) * font * 0.62 / 72
    side = K * cell
    width, height = margin + side + 0.15, margin * (0.72 if few else 1) + side + 0.4
    figure = blank(width, height)
    axes = panel(figure, margin, height - side - 0.4, side, side)
    with np.errstate(invalid="ignore"):
        share = matrix / matrix.sum(axis=1, keepdims=True)  # rows without images: NaN
    right = np.eye(K, dtype=bool)
    colours = np.zeros((K, K, 4))
    for where, colour in ((right, BLUE), (~right, ORANGE)):
        colours[where, :3] = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    colours[..., 3] = np.sqrt(np.nan_to_num(share))
    axes.imshow(colours, interpolation="nearest")
    axes.set_xticks(np.arange(K + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(K + 1) - 0.5, minor=True)
    axes.grid(which="minor", color=GRID, linewidth=0.8 if few else 0.4)
    axes.set_xticks(range(K), names, rotation=45 if few else 90, ha="right" if few else "center", fontsize=font)
    axes.set_yticks(range(K), names, fontsize=font)
    if few:
        for tick in axes.get_xticklabels():
            tick.set_rotation_mode("anchor")
    for tick in [*axes.get_xticklabels(), *axes.get_yticklabels()]:
        tick.set_color(INK)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    caption(axes, "true class (row), given class (column), % of the row", x=0)
    if few:
        for i, j in zip(*np.nonzero(matrix), strict=True):
            value = 100 * share[i, j]
            text = f"{value:.0f}" if value > 0.5 else "<1"
            axes.text(j, i, text, ha="center", va="center", fontsize=8.5, color="white" if share[i, j] > 0.68 else INK)
    return figure


def _draw_pairs(matrix: NDArray[np.int64], class_names: Sequence[str]) -> Figure:
    pairs = most_confused(matrix, PAIRS)
    height = 0.4 + 0.36 * max(len(pairs), 1)
    figure = blank(4.8, height)
    axes = figure.add_axes((0.02, 0.05 / height, 0.98, 1 - 0.4 / height))
    caption(axes, "the most confused pairs, % of the true class's images", x=0)
    axes.axis("off")
    if not pairs:
        text_at(axes, 0.5, 0.5, "no wrong answer", ha="center", va="center", color=MUTED)
        return figure
    shares = [share for *_, share in pairs]
    axes.barh(range(len(pairs)), shares, height=0.34, color=ORANGE)
    for n, (true, given, images, share) in enumerate(pairs):
        text = f"{clip(name_of(class_names, true), 26)} → {clip(name_of(class_names, given), 26)}"
        axes.text(0, n - 0.23, text, va="bottom", fontsize=9)
        text = f"{percent(share)} ({images:,})"
        axes.annotate(text, (share, n), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=MUTED)
    axes.set_xlim(0, max(shares) * 1.3)
    axes.set_ylim(len(pairs) - 0.6, -0.7)
    return figure


def _draw_bars(axes: Axes, probs: Float, class_names: Sequence[str], label: int | None, top: int) -> None:
    """Draw the most probable classes of an image, names over bars as in the paper."""
    axes.set_xlim(0, 1.3)  # percentages are to the right of the longest bar
    axes.set_ylim(top - 0.5, -0.5)
    axes.axis("off")
    for n, k in enumerate(top_classes(probs, top)):
        right = k == label
        share = float(np.nan_to_num(probs[k]))
        axes.barh(n, share, height=0.82, color=BLUE if right or label is None else ORANGE, alpha=0.45 if right else 0.3)
        name = ("✓ " if right else "") + clip(name_of(class_names, k), 21)
        weight = "bold" if right else "normal"
        axes.text(0.03, n, name, va="center", fontsize=8.5, weight=weight)
        axes.text(1.3, n, percent(share), va="center", ha="right", fontsize=8, weight=weight)
