"""Windows over images and maps: the padding of 2012, convolution, pooling, and the crops."""

from __future__ import annotations

import numpy as np

from minialex.backend.rules import conv_size, pool_size
from minialex.data.draws import ten_crop_offsets
from minialex.data.sets import figures as shapes
from minialex.network import models
from minialex.network.layers import Conv2d, MaxPool2d
from minialex.recipe.toml import load
from minialex.site.diagrams.svg import WIDTH, Drawing
from minialex.site.live import apply

Grid = np.ndarray


def image() -> Drawing:
    """One of the library's own pictures, small, as three grids of bytes, one behind another."""
    side = 6
    pixels = shapes.draw(0, "train", np.array([2]), 24)[0]
    bytes_ = pixels[:, 2::4, 2::4]
    drawing = Drawing(
        "image",
        f"Three grids of {side} × {side} numbers from 0 to 255, for red, green and blue, one behind the other: an "
        f"array of shape 3, {side}, {side}. H counts rows downwards, W columns to the right, C the grids.",
    )
    cell, back, left = 30.0, 34.0, 58.0
    for grid, name, role, words in ((2, "blue", "one-soft", "one"), (1, "green", "soft", "quiet"),
                                    (0, "red", "two-soft", "two")):  # fmt: skip
        x, y = left + grid * back, 14 + (2 - grid) * back
        drawing.rect(x, y, side * cell, side * cell, "paper", 0)
        drawing.rect(x, y, side * cell, side * cell, role, 0)
        drawing.text(x - 5, y + 14, name, words, 12, "end", bold=True)
        for i in range(side):
            for j in range(side):
                if grid == 0 or i == 0 or j == side - 1:
                    drawing.text(x + (j + 0.5) * cell, y + (i + 0.5) * cell + 4, str(bytes_[grid, i, j]), "ink", 11)
        for line in range(1, side):
            drawing.path([(x + line * cell, y), (x + line * cell, y + side * cell)], "rule")
            drawing.path([(x, y + line * cell), (x + side * cell, y + line * cell)], "rule")
    right, bottom = left + side * cell, 14 + 2 * back + side * cell
    drawing.arrow([(left, bottom + 12), (right, bottom + 12)], "guide")
    drawing.text(left + side * cell / 2, bottom + 28, f"W = {side}", "quiet")
    drawing.arrow([(left - 12, bottom - side * cell + 24), (left - 12, bottom)], "guide")
    drawing.sideways(left - 20, bottom - side * cell / 2, f"H = {side}")
    drawing.arrow([(right + 12, bottom), (right + 12 + 2 * back, bottom - 2 * back)], "guide")
    drawing.text(right + back + 22, bottom - back + 14, "C = 3", "quiet", anchor="start")
    drawing.height = bottom + 36
    return drawing


def padding() -> Drawing:
    """Where conv1's windows are in 224 rows: the last one extends past the edge by three."""
    layer = models.ALEXNET.layer("conv1")
    assert isinstance(layer, Conv2d)
    rows, size, stride = load("alexnet-2012").crop, layer.size, layer.stride
    places = conv_size(rows, size, stride, layer.padding[0])
    over = (places - 1) * stride + size - rows
    first = rows - 20
    drawing = Drawing(
        "padding",
        f"Left: the image of {rows} × {rows} with {over} rows of zeros below and {over} columns to the right. Below: "
        f"its last rows, {first} to {rows - 1}, and the last windows of {size} rows, {stride} apart: window "
        f"{places - 1} begins at row {(places - 1) * stride} and reads {over} rows that are not there.",
    )
    side = 150.0
    drawing.rect(20, 26, side, side, "one-soft", 0)
    strip = 14.0  # not to scale: three of 224 rows would be two units
    drawing.rect(20 + side, 26, strip, side + strip, "two-soft", 0)
    drawing.rect(20, 26 + side, side, strip, "two-soft", 0)
    drawing.text(20 + side / 2, 96, "image", "ink", 13, bold=True)
    drawing.text(20 + side / 2, 114, f"{rows} × {rows}")
    for line, (words, role, bold) in enumerate(
        (
            (f"{over} zeros, to the right", "two", True),
            ("and below; none above,", "two", True),
            ("none to the left", "two", True),
            (f"({rows} + {over} − {size}) / {stride} + 1", "ink", False),
            (f"= {places} places", "ink", True),
            ("(the strip is drawn wider", "quiet", False),
            ("than it is)", "quiet", False),
        )
    ):
        drawing.text(198, 56 + 17 * line + (8 if line > 2 else 0), words, role, 12, "start", bold)
    y = 226.0
    step = (WIDTH - 24) / (rows + over - first)
    drawing.text(12, y - 8, "the last rows, from the side", "ink", 13, "start", bold=True)
    for row in range(first, rows + over):
        drawing.rect(12 + (row - first) * step, y, step, 22, "one-soft" if row < rows else "two-soft", 0)
    for row in (first, rows - 10, rows - 1):
        drawing.text(12 + (row - first + 0.5) * step, y + 36, str(row), "quiet", 11)
    drawing.text(12 + (rows - first + over / 2) * step, y + 36, "zeros", "two", 11)
    y += 54
    for window in range(places - 3, places):
        start = window * stride
        left = 12 + (start - first) * step
        width = size * step
        drawing.rect(max(left, 12), y, width - max(0, 12 - left), 15, "soft", 2)
        drawing.text(max(left, 12) + (width - max(0, 12 - left)) / 2, y + 11.5, f"window {window}", "ink", 11)
        y += 21
    drawing.text(12, y + 12, f"windows are numbered from 0 to {places - 1}", "quiet", 11, "start")
    drawing.height = y + 20
    return drawing


def example() -> tuple[Grid, Grid, Grid]:
    """A small image with an edge, a kernel that finds it, and their convolution by the reference backend."""
    image = np.zeros((5, 5))
    image[:, 2:] = 3
    image[0, 2], image[3, 2], image[4, 1] = 2, 1, 1
    kernel = np.array([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])
    (y,) = apply("conv2d", image[None, None], kernel[None, None], np.zeros(1), stride=1, padding=((0, 0), (0, 0)))
    return image, kernel, y[0, 0]


def _grid(drawing: Drawing, grid: Grid, x: float, y: float, cell: float, role: str) -> None:
    for i, row in enumerate(grid):
        for j, value in enumerate(row):
            drawing.rect(x + j * cell, y + i * cell, cell, cell, role, 0)
            drawing.text(x + (j + 0.5) * cell, y + (i + 0.5) * cell + 4, f"{value:g}".replace("-", "−"))


def convolution() -> Drawing:
    """One position of a convolution: the window, the kernel, the resulting number."""
    image, kernel, out = example()
    size = len(kernel)
    drawing = Drawing(
        "convolution",
        f"An image of {len(image)} × {len(image)} numbers, a kernel of {size} × {size}, and the {len(out)} × "
        f"{len(out)} results. The window in the upper left corner is multiplied with the kernel, number by number, and "
        f"summed: {out[0, 0]:g}. Then the window moves on by one.",
    )
    cell = 28.0
    x0, y0 = 10.0, 30.0
    drawing.text(x0, 20, "image", "ink", 13, "start", bold=True)
    _grid(drawing, image, x0, y0, cell, "empty")
    drawing.rect(x0, y0, size * cell, size * cell, "one-soft", 0)
    drawing.rect(x0, y0, size * cell, size * cell, "one-line", 0)
    drawing.rect(x0 + cell, y0 - 3, size * cell, size * cell + 6, "guide", 0)
    kx = x0 + 5 * cell + 24
    drawing.text(kx + 1.5 * cell, 20, "kernel", "ink", 13, bold=True)
    _grid(drawing, kernel, kx, y0, cell, "two-soft")
    ox = kx + 3 * cell + 18
    drawing.text(ox + 1.25 * cell, 20, "output", "ink", 13, bold=True)
    small = cell * 0.92
    _grid(drawing, out, ox, y0, small, "empty")
    drawing.rect(ox, y0, small, small, "one-line", 0)
    window = image[:size, :size]
    y = y0 + 5 * cell + 28
    drawing.text(x0, y, "the marked window:", "ink", 12, "start", bold=True)
    for line, (a, b) in enumerate(zip(window, kernel, strict=True)):
        terms = (f"{p:g} · ({q:g})" if q < 0 else f"{p:g} · {q:g}" for p, q in zip(a, b, strict=True))
        words = " + ".join(terms).replace("-", "−")
        drawing.text(x0 + 14, y + 20 + 18 * line, ("+ " if line else "") + words, "quiet", 12, "start")
    drawing.text(x0 + 14, y + 22 + 18 * size, f"= {out[0, 0]:g}", "one", 14, "start", bold=True)
    drawing.text(x0 + 56, y + 21 + 18 * size, "(dashed: the next window)", "quiet", 11, "start")
    drawing.height = y + 34 + 18 * size
    return drawing


def patches() -> Drawing:
    """The same convolution as one matrix product: every window a row, the kernel a column."""
    image, kernel, out = example()
    size, places = len(kernel), len(out)
    rows = np.lib.stride_tricks.sliding_window_view(image, (size, size)).reshape(places * places, size * size)
    result = rows @ kernel.reshape(-1)
    assert np.array_equal(result, out.reshape(-1))
    drawing = Drawing(
        "patches",
        f"A matrix with {len(rows)} rows, one for each window, of {rows.shape[1]} numbers each; times the kernel "
        f"written as a column of {kernel.size}; gives the {len(result)} results.",
    )
    cell = 24.0
    x0, y0 = 10.0, 44.0
    width = rows.shape[1] * cell
    drawing.text(x0, 16, f"{len(rows)} windows, each a row", "one", 12, "start", bold=True)
    drawing.text(x0, 32, f"of {rows.shape[1]} numbers", "one", 12, "start", bold=True)
    _grid(drawing, rows, x0, y0, cell, "empty")
    drawing.rect(x0, y0, width, cell, "one-soft", 0)
    drawing.rect(x0, y0, width, cell, "one-line", 0)
    kx = x0 + width + 30
    drawing.text(kx - 15, y0 + 4.5 * cell + 4, "×", "ink", 15)
    drawing.text(kx + cell / 2, 32, "kernel", "two", 12, bold=True)
    _grid(drawing, kernel.reshape(-1, 1), kx, y0, cell, "two-soft")
    rx = kx + cell + 34
    drawing.text(rx - 17, y0 + 4.5 * cell + 4, "=", "ink", 15)
    drawing.text(rx + cell / 2, 32, "output", "ink", 12, bold=True)
    _grid(drawing, result.reshape(-1, 1), rx, y0, cell, "empty")
    drawing.rect(rx, y0, cell, cell, "one-line", 0)
    drawing.height = y0 + len(rows) * cell + 10
    return drawing


def pooling() -> Drawing:
    """Windows of pooling along one row: overlapping as in the paper, and side by side."""
    network = models.ALEXNET
    layer = network.layer("pool5")
    assert isinstance(layer, MaxPool2d)
    rows = next(stage.seen[1] for stage in network.stages(2) if stage.layer.name == "pool5")
    values = np.array([2, 0, 1, 5, 1, 0, 3, 1, 4, 0, 2, 7, 1])[:rows]
    drawing = Drawing(
        "pooling",
        f"A row of {rows} numbers. Above, windows of {layer.size}, {layer.stride} apart: neighbours share a number. "
        "Below, windows of 2, 2 apart: they lie side by side and share none. Under each window its largest number.",
    )
    left = 12.0
    step = (WIDTH - 2 * left) / (rows + 1)
    y = 16.0
    for size, stride, words in ((layer.size, layer.stride, "windows that overlap"), (2, 2, "windows side by side")):
        count = pool_size(rows, size, stride, layer.ceil)
        drawing.text(left, y, f"z = {size}, s = {stride}: {count} {words}", "ink", 13, "start", bold=True)
        y += 12
        shared = [sum(p * stride <= i < p * stride + size for p in range(count)) > 1 for i in range(rows)]
        for i, value in enumerate(values):
            drawing.rect(left + i * step, y, step, 26, "two-soft" if shared[i] else "empty", 0)
            drawing.text(left + (i + 0.5) * step, y + 17, str(value))
        y += 32
        for p in range(count):
            a = left + p * stride * step
            held = min(size, rows - p * stride) * step
            level = y + (p % 2) * 9
            drawing.path([(a + 2, level), (a + held - 2, level)], "one-line", stroke_width=4)
            drawing.text(a + held / 2, y + 30, str(values[p * stride : p * stride + size].max()), "one", 13, bold=True)
            if held < size * step:
                drawing.path([(a + held, level), (a + size * step, level)], "guide", stroke_width=2)
        y += 62
    drawing.text(left, y - 12, "orange: read by two windows; blue: the largest of a window", "quiet", 11, "start")
    drawing.height = y - 2
    return drawing


def crops() -> Drawing:
    """Possible crops in training, and the five positions in testing."""
    recipe = load("alexnet-2012")
    size, crop = recipe.image_size, recipe.crop
    free = size - crop
    drawing = Drawing(
        "crops",
        f"An image of {size} × {size}. In training a crop of {crop} × {crop} is cut with its corner anywhere in a "
        f"square of {free + 1} × {free + 1} positions, and reflected half of the time. In testing there are five "
        "places, four corners and the centre, each also reflected: ten views.",
    )
    scale = 150 / size
    for column, words in enumerate(("training: at random", "testing: five places × 2")):
        x, y = 12 + column * 180.0, 34.0
        drawing.text(x, 18, words, "ink", 13, "start", bold=True)
        drawing.rect(x, y, size * scale, size * scale, "soft", 0)
        if column == 0:
            drawing.rect(x, y, (free + 1) * scale, (free + 1) * scale, "two-soft", 0)
            for top, left in ((7, 21), (26, 5)):
                drawing.rect(x + left * scale, y + top * scale, crop * scale, crop * scale, "one-line", 0)
                drawing.disc(x + left * scale, y + top * scale, 3, "one")
            drawing.text(x, y + 170, f"{free + 1} × {free + 1} corners (orange)", "two", 12, "start")
            drawing.text(x, y + 187, f"× 2 reflections = {(free + 1) ** 2 * 2:,}", "ink", 12, "start")
        else:
            views = ten_crop_offsets(size, crop)
            for top, left, flip in views[::-1]:
                centre = 0 < top < free
                if not flip:
                    role = "two-line" if centre else "one-line"
                    drawing.rect(x + left * scale, y + top * scale, crop * scale, crop * scale, role, 0)
            drawing.text(x, y + 170, "four corners (blue),", "one", 12, "start")
            drawing.text(x, y + 187, f"the centre: {len(views)} views", "two", 12, "start")
    drawing.height = 34 + 196
    return drawing
