"""What happens between the two columns: the exchanges, and one training step on two devices."""

from __future__ import annotations

from minialex.network import models
from minialex.network.layers import Conv2d, Linear
from minialex.recipe.toml import load
from minialex.site.diagrams.svg import WIDTH, Drawing
from minialex.speed.plan import lay_out

SIDE = ("one", "two")


def exchange() -> Drawing:
    """The four places where columns read each other, with values and bytes."""
    batch = load("alexnet-2012").batch_size
    exchanges = lay_out(models.ALEXNET, (0, 1)).exchanges
    drawing = Drawing(
        "exchange",
        "Four places where the columns read each other. "
        + " ".join(
            f"From {item.source} into {item.reader}: {item.values:,} values an image "
            f"{'each way' if item.both > item.values else 'from column 2 to column 1 only'}, "
            f"{item.values * 4 * batch / 1e6:.2f} MB for a batch of {batch}."
            for item in exchanges
        )
        + " In the backward pass as many gradients take the same way back.",
    )
    drawing.text(48, 16, "column 1", "one", 13, bold=True)
    drawing.text(WIDTH - 48, 16, "column 2", "two", 13, bold=True)
    for place, item in enumerate(exchanges):
        y = 32 + 118 * place
        both_ways = item.both > item.values
        for column, x in enumerate((8, WIDTH - 88)):
            role = SIDE[column]
            drawing.rect(x, y, 80, 26, f"{role}-soft", 4)
            drawing.text(x + 40, y + 17, item.source)
            if both_ways or column == 0:
                drawing.rect(x, y + 68, 80, 26, f"{role}-soft", 4)
                drawing.text(x + 40, y + 85, item.reader)
                drawing.arrow([(x + 40, y + 27), (x + 40, y + 67)], f"{role}-line")
        drawing.arrow([(WIDTH - 80, y + 27), (80, y + 67)], "two-line")
        if both_ways:
            drawing.arrow([(80, y + 27), (WIDTH - 80, y + 67)], "one-line")
        drawing.text(WIDTH / 2, y + 11, f"{item.values:,} values", "ink", 12, bold=True)
        drawing.text(WIDTH / 2, y + 26, "each way" if both_ways else "one way", "quiet", 11)
        drawing.text(WIDTH / 2, y + 80, f"{item.values * 4 * batch / 1e6:.2f} MB", "ink", 12, bold=True)
        drawing.text(WIDTH / 2, y + 94, f"batch of {batch}", "quiet", 11)
    drawing.height = 38 + 118 * len(exchanges) - 8
    return drawing


def timeline() -> Drawing:
    """A step on two devices: time runs downwards, and a layer's length is its multiply-adds."""
    stages = [stage for stage in models.ALEXNET.stages(2) if isinstance(stage.layer, Conv2d | Linear)]
    drawing = Drawing(
        "timeline",
        "Time goes down, one lane for each device. Forward, conv1 to fc8; then backward, fc8 to conv1, twice as long. "
        "Arrows between the lanes, before conv3, fc6, fc7 and fc8 and after them on the way back, are what the devices "
        "exchange; otherwise each works alone. The second device waits while the first computes fc8.",
    )
    whole = sum(stage.layer.multiply_adds(stage.seen, stage.columns) for stage in stages)
    scale = 190 / whole
    lanes = (88.0, WIDTH - 88.0)
    half = 44.0
    y = 40.0
    drawing.text(lanes[0], 16, "device 1", "one", 13, bold=True)
    drawing.text(lanes[1], 16, "device 2", "two", 13, bold=True)
    for direction in ("forward", "backward"):
        begin = y
        ordered = stages if direction == "forward" else stages[::-1]
        for stage in ordered:
            work = stage.layer.multiply_adds(stage.seen, stage.columns)
            passes = 1 if direction == "forward" else 2 if stage.trained_before else 1
            height = max(13.5, passes * work * scale)
            if stage.gathers and direction == "forward":
                y = _cross(drawing, lanes, half, y, stage.columns, forward=True)
            for column, x in enumerate(lanes):
                if column < stage.columns:
                    drawing.rect(x - half, y, 2 * half, height - 1, f"{SIDE[column]}-soft", 2)
                    drawing.text(x, y + height / 2 + 3, stage.layer.name, "ink", 10.5)
                else:
                    drawing.text(x, y + height / 2 + 3.5, "waits", "quiet", 11)
            y += height
            if stage.gathers and direction == "backward":
                y = _cross(drawing, lanes, half, y, stage.columns, forward=False)
        drawing.sideways(22, (begin + y) / 2, direction)
        y += 14
    for column, x in enumerate(lanes):
        drawing.rect(x - half, y, 2 * half, 16, f"{SIDE[column]}-soft", 2)
        drawing.text(x, y + 12, "update", "ink", 11)
    drawing.arrow([(WIDTH - 14, 40), (WIDTH - 14, y + 14)], "guide")
    drawing.sideways(WIDTH - 20, (40 + y) / 2, "time")
    drawing.height = y + 24
    return drawing


def _cross(
    drawing: Drawing, lanes: tuple[float, float], half: float, y: float, columns: int, *, forward: bool
) -> float:
    """Draw the arrows of an exchange between the lanes; return where time continues."""
    left, right = lanes[0] + half + 2, lanes[1] - half - 2
    if columns == 2 or forward:
        drawing.arrow([(right, y + 4), (left, y + 11)], "two-line", 6)
    if columns == 2 or not forward:
        drawing.arrow([(left, y + 4), (right, y + 11)], "one-line", 6)
    return y + 15
