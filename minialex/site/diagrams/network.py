"""The whole network: its two columns, where its numbers are, and how far each layer sees."""

from __future__ import annotations

import math

from minialex.engine.summary import summarise
from minialex.look.units import receptive_field
from minialex.network import models
from minialex.network.network import Stage
from minialex.recipe.toml import load
from minialex.site.diagrams.svg import WIDTH, Drawing

SHOWN = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4", "conv5", "pool5", "fc6", "fc7", "fc8")
SIDE = ("one", "two")


def stages() -> dict[str, Stage]:
    """The paper's layers in their places, by name."""
    return {stage.layer.name: stage for stage in models.ALEXNET.stages(2)}


def shape(numbers: tuple[int, ...]) -> str:
    """A shape as text: 48 × 55 × 55."""
    return " × ".join(f"{number:,}" for number in numbers)


def columns() -> Drawing:
    """Figure 2, redrawn: every map in its true proportions, and every place where one column reads the other."""
    drawing = Drawing(
        "columns",
        "The network from top to bottom. The image of 3 × 224 × 224 goes into both columns. Each column has conv1, "
        "pool1, conv2 and pool2 of its own; conv3 reads both columns; conv4, conv5 and pool5 are again each column's "
        "own; fc6 and fc7 read both columns, and fc8, on the first column, reads both.",
    )
    known = stages()
    centre = (96.0, WIDTH - 96.0)
    crop = known["conv1"].seen[1]
    scale = 170 / crop
    y = 30.0
    drawing.text(centre[0], 14, "column 1", "one", 13, bold=True)
    drawing.text(centre[1], 14, "column 2", "two", 13, bold=True)
    drawing.rect((WIDTH - crop * scale) / 2, y, crop * scale, 7, "soft")
    drawing.text(WIDTH / 2, y + 22, f"image, {shape(known['conv1'].seen)}")
    below = [(WIDTH / 2 - 78, y + 8), (WIDTH / 2 + 78, y + 8)]
    y += 34
    for name in SHOWN:
        stage = known[name]
        maps = len(stage.output) == 3
        channels = stage.output[0]
        height = channels / 3 if maps else 10.0
        top = y + 16
        middle = top + height / 2
        drawing.text(WIDTH / 2, middle + 4, name, "ink", 12, bold=True)
        arrived = []
        for column in range(stage.columns):
            x = centre[column]
            width = stage.output[1] * 1.4 if maps else channels / 24
            left, right = x - width / 2, x + width / 2
            role = SIDE[column]
            start = below[column]
            drawing.arrow([start, (x, top - 1)], f"{role}-line", 6)
            if stage.gathers:
                inner = 1 if column == 0 else -1
                edge = (x + inner * (width / 2 + 1), top + 12) if maps else (x + inner * 18, top - 1)
                drawing.arrow([below[1 - column], edge], f"{SIDE[1 - column]}-line", 6)
            drawing.rect(left, top, width, height, f"{role}-soft", 1)
            words = shape(stage.output)
            if maps and width > 60:
                drawing.text(x, top + height + 13, words, "quiet", 11)
            elif maps:
                lines = [f"{channels}", f"× {stage.output[1]} × {stage.output[2]}"]
                place, anchor = (left - 6, "end") if column == 0 else (right + 6, "start")
                for line, text in enumerate(lines):
                    drawing.text(place, middle - 3 + 14 * line, text, "quiet", 11, anchor)
            else:
                drawing.text(x, top + height + 13, words, "quiet", 11)
            arrived.append((x, top + height + (17 if words and (not maps or width > 60) else 1)))
        below = arrived if len(arrived) == 2 else [arrived[0], arrived[0]]
        y = arrived[0][1] + (8 if stage.columns == 2 else 0)
    drawing.text(centre[1], y - 24, f"{known['fc8'].output[0]:,} classes,", "quiet", 11)
    drawing.text(centre[1], y - 10, "on device 1 alone", "quiet", 11)
    drawing.height = y + 4
    return drawing


def shares() -> Drawing:
    """Where the parameters are, and where the arithmetic is."""
    rows = [row for row in summarise(load("alexnet-2012"), 1).rows if row.parameters]
    parameters, arithmetic = sum(row.parameters for row in rows), sum(row.multiply_adds for row in rows)
    drawing = Drawing(
        "shares",
        "Bars for the eight layers: "
        + "; ".join(
            f"{row.layer} has {row.parameters / parameters:.1%} of the parameters and "
            f"{row.multiply_adds / arithmetic:.1%} of the multiply-adds"
            for row in rows
        )
        + ".",
        58 + 34 * len(rows),
    )
    left, full = 48, WIDTH - 48 - 52
    drawing.rect(left, 8, 12, 12, "one-soft")
    drawing.text(left + 18, 18, "share of the parameters", "ink", 12, "start")
    drawing.rect(left, 27, 12, 12, "two-soft")
    drawing.text(left + 18, 37, "share of the multiply-adds", "ink", 12, "start")
    longest = max(max(row.parameters / parameters, row.multiply_adds / arithmetic) for row in rows)
    for place, row in enumerate(rows):
        y = 56 + 34 * place
        drawing.text(left - 8, y + 15, row.layer, "ink", 12, "end")
        pair = ((row.parameters / parameters, "one-soft"), (row.multiply_adds / arithmetic, "two-soft"))
        for line, (share, role) in enumerate(pair):
            drawing.rect(left, y + 13 * line, max(1.0, share / longest * full), 10, role, 1)
            drawing.text(left + share / longest * full + 5, y + 9 + 13 * line, f"{share:.1%}", "quiet", 11, "start")
    return drawing


def fields() -> Drawing:
    """The receptive field of one position of each layer: nested squares in the image."""
    reach = {name: field[0].size for name in SHOWN if (field := receptive_field(models.ALEXNET, name))}
    crop = stages()["conv1"].seen[1]
    drawing = Drawing(
        "fields",
        f"Nested squares in the image of {crop} × {crop}: the part that one place of a layer sees. "
        + ", ".join(f"{name} {rows} × {rows}" for name, rows in reach.items())
        + ".",
        crop + 30,
    )
    x0, y0 = 8.0, 8.0
    drawing.rect(x0, y0, crop, crop, "soft")
    middle = crop / 2
    for place, (name, rows) in enumerate(sorted(reach.items(), key=lambda item: -item[1])):
        role = "one" if name.startswith("conv") else "two"
        drawing.rect(x0 + middle - rows / 2, y0 + middle - rows / 2, rows, rows, f"{role}-line", 0)
        y = 26 + 27 * place
        edge = (x0 + middle + rows / 2, y0 + middle - rows / 2 + rows * 0.5 * math.exp(-rows / 60))
        drawing.path([edge, (x0 + crop + 8, y - 4)], "rule")
        drawing.text(x0 + crop + 12, y, f"{name}: {rows} × {rows}", role, 12, "start")
    drawing.text(x0 + crop / 2, y0 + crop + 16, f"the image, {crop} × {crop}", "quiet", 11)
    return drawing


def depth() -> Drawing:
    """The eight layers that learn, one after another, with how many weights each has."""
    learning = [row for row in summarise(load("alexnet-2012")).rows if row.parameters]
    drawing = Drawing(
        "depth",
        "Eight layers in a row, five of convolution and three full ones. Section 7 of the paper takes one of the "
        "middle convolutions out at a time; conv3, conv4 and conv5 are marked.",
        40 + 40 * len(learning),
    )
    for place, row in enumerate(learning):
        y = 12 + 40 * place
        middle = row.layer in ("conv3", "conv4", "conv5")
        role = "two-soft" if middle else "one-soft" if row.layer.startswith("conv") else "soft"
        drawing.rect(70, y, 120, 24, role, 4)
        drawing.text(130, y + 16, row.layer, "ink", 12, bold=True)
        drawing.text(200, y + 16, f"{row.parameters:,}", "quiet", 11, "start")
        drawing.text(62, y + 16, f"layer {place + 1}", "quiet", 11, "end")
        if place + 1 < len(learning):
            drawing.arrow([(130, y + 25), (130, y + 39)], "line", 5)
    drawing.text(200, 10, "parameters", "quiet", 11, "start")
    drawing.text(130, 36 + 40 * len(learning) - 14, "orange: left out one at a time", "two", 11)
    return drawing
