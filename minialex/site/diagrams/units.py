"""Single units and their neighbours: ReLU beside tanh, normalisation across channels, dropout's masks."""

from __future__ import annotations

import numpy as np

from minialex.network import models
from minialex.network.layers import Dropout, LocalResponseNorm
from minialex.philox import Stream, purpose
from minialex.site.diagrams.svg import WIDTH, Axes, Drawing
from minialex.site.live import apply


def relu() -> Drawing:
    """ReLU and tanh, and the fraction of a gradient that each passes."""
    drawing = Drawing(
        "relu",
        "Above: the outputs of ReLU, which is 0 on the left and a straight line on the right, and of tanh, which "
        "levels off at −1 and 1. Below: their slopes. ReLU's is 0 or 1; tanh's is 1 at 0 and falls towards 0 on both "
        "sides.",
        470,
    )
    xs = np.linspace(-4, 4, 161)
    outputs, slopes = [], []
    for role, name in (("two", "tanh"), ("one", "relu")):
        (y,) = apply(name, xs[None])
        outputs.append((role, y[0]))
        slopes.append((role, apply(f"{name}_backward", np.ones_like(y), y)[0][0]))
    above = Axes(drawing, 34, 34, WIDTH - 50, 180, -4, 4, -1.2, 4)
    drawing.text(34, 18, "output y", "ink", 13, "start", bold=True)
    above.frame((-4, -2, 0, 2, 4), (-1, 0, 1, 2, 3, 4))
    for role, ys in outputs:
        above.curve(xs.tolist(), ys.tolist(), f"{role}-line")
    drawing.text(*above.at(2.35, 3.2), "ReLU", "one", 13, "end", bold=True)
    drawing.text(*above.at(3.9, 0.45), "tanh", "two", 13, "end", bold=True)
    below = Axes(drawing, 34, 284, WIDTH - 50, 140, -4, 4, -0.05, 1.25)
    drawing.text(34, 266, "slope dy/dx: a gradient is multiplied by it", "ink", 13, "start", bold=True)
    below.frame((-4, -2, 0, 2, 4), (0, 0.5, 1))
    for role, ys in slopes:
        below.curve(xs.tolist(), ys.tolist(), f"{role}-line")
    drawing.text(*below.at(3.9, 1.07), "ReLU", "one", 13, "end", bold=True)
    drawing.text(*below.at(1.5, 0.32), "tanh", "two", 13, "start", bold=True)
    drawing.text(34 + (WIDTH - 50) / 2, 462, "input x", "quiet", 12)
    return drawing


def channels_at_the_edge() -> tuple[int, int, dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
    """Channels of a column, size of the window, and the windows (first, last) of channels near the border.

    The windows within the column and across all channels, by the channel's number in the whole layer.
    """
    norm = models.ALEXNET.layer("norm1")
    assert isinstance(norm, LocalResponseNorm)
    stage = next(stage for stage in models.ALEXNET.stages(2) if stage.layer.name == "norm1")
    column, before = stage.seen[0], norm.size // 2
    after = norm.size - 1 - before
    shown = range(column - before, column + before)
    within, across = {}, {}
    for channel in shown:
        first, last = (0, column - 1) if channel < column else (column, 2 * column - 1)
        within[channel] = max(first, channel - before), min(last, channel + after)
        across[channel] = max(0, channel - before), min(2 * column - 1, channel + after)
    return column, norm.size, within, across


def normalisation() -> Drawing:
    """Windows across channels at the border between the columns: within a column, and across."""
    column, size, within, across = channels_at_the_edge()
    first, last = column - size, column + size - 1
    drawing = Drawing(
        "normalisation",
        f"The channels of conv1 near the border between the columns, numbers {first} to {last}; channel {column} is "
        f"the first of column 2. Windows of {size} channels around channels {min(within)} to {max(within)}: within a "
        "column the windows are cut at the border, across all channels they reach over it.",
    )
    left = 22.0
    step = (WIDTH - 2 * left) / (last - first + 1)

    def place(channel: int) -> float:
        return left + (channel - first) * step

    y = 14.0
    for heading, windows in (("within a column (2012, and here)", within), ("across all channels", across)):
        drawing.text(left, y, heading, "ink", 13, "start", bold=True)
        y += 10
        for channel in range(first, last + 1):
            role = "one" if channel < column else "two"
            drawing.rect(place(channel) + 1, y, step - 2, 24, f"{role}-soft", 2)
            drawing.text(place(channel) + step / 2, y + 16, str(channel), "ink", 11)
        y += 32
        begin = y
        for channel, (a, b) in windows.items():
            role = "one" if channel < column else "two"
            middle = y + 5
            drawing.path([(place(a) + 3, middle), (place(b + 1) - 3, middle)], f"{role}-line", stroke_width=6)
            drawing.disc(place(channel) + step / 2, middle, 5.5, "ink")
            y += 17
        drawing.path([(place(column), begin - 36), (place(column), y)], "guide")
        y += 30
    drawing.text(left, y - 14, "● the channel that is divided; bar: whose squares count", "quiet", 11, "start")
    drawing.height = y - 4
    return drawing


def dropout() -> Drawing:
    """A dozen hidden units over some steps: which of them are kept, by the library's own draws."""
    layer = models.ALEXNET.layer("dropout6")
    assert isinstance(layer, Dropout)
    units, steps = 12, 6
    drawing = Drawing(
        "dropout",
        f"{units} hidden units in {steps} training steps. In each step about half of them are crossed out and give "
        "nothing; which ones is drawn anew every time. In the last row, at test time, all speak, at half strength.",
    )
    left = 76.0
    apart = (WIDTH - left - 12) / units
    drawing.text(left, 16, "units of fc6, image 0, seed 0", "ink", 13, "start", bold=True)
    for step in range(steps + 1):
        y = 44 + 32 * step + (12 if step == steps else 0)
        if step < steps:
            stream = Stream(0, purpose(f"dropout/{layer.name}"), step)
            ones = np.ones((1, units), np.float32)
            mask = apply("dropout", ones, rate=layer.rate, factor=1.0, stream=stream)[1][0]
        else:
            mask = np.ones(units, np.uint8)
        drawing.text(left - 10, y + 4, f"step {step}" if step < steps else "test", "quiet", 12, "end")
        for unit in range(units):
            x = left + apart * (unit + 0.5) - 4
            if mask[unit]:
                drawing.disc(x, y, 9 if step < steps else 9 * 0.5**0.5, "one")
            else:
                drawing.crossed(x, y, 9)
    drawing.text(left, 76 + 32 * (steps + 1), "at test time: all of them, times a half", "quiet", 12, "start")
    drawing.height = 84 + 32 * (steps + 1)
    return drawing
