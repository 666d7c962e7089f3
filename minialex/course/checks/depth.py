"""Checks of notebook 12: depth."""

from __future__ import annotations

import math
from typing import Any

from minialex.course.checks.feedback import call, exercise, same_number
from minialex.engine.summary import summarise
from minialex.look.units import receptive_field
from minialex.network import models
from minialex.recipe.toml import load


@exercise
def receptive_rows(answer: Any) -> str:
    """A function: windows [(rows, stride), …] in order -> how many rows of the image one place of the last sees."""
    network = models.ALEXNET
    windows = []
    for layer in network.layers:
        window = layer.window(0)
        if window is None:
            break
        if window[:2] != (1, 1):
            windows.append(window[:2])
            found = receptive_field(network, layer.name)
            assert found is not None
            truth = found[0].size
            sizes = [size for size, _ in windows]
            mistakes = [
                (sum(sizes) - len(sizes) + 1, "a step of a late layer is a long way in the image: multiply by the "
                 "strides before it."),
                (math.prod(sizes), "windows do not multiply: each adds (rows − 1) steps."),
                (sum(sizes), "the first place is counted once: each window adds rows − 1 steps to it."),
            ]  # fmt: skip
            hint = "Begin with 1 row and a step of 1; each window adds (rows − 1) · step and multiplies the step."
            same_number(call(answer, list(windows)), truth, f"receptive_rows({windows})", mistakes, hint=hint)
    return f"in the last pooling layer a place sees {truth} rows of the image."


@exercise
def share_of_conv3(answer: Any) -> str:
    """The share of the parameters that conv3 has, in percent."""
    rows = {row.layer: row.parameters for row in summarise(load("alexnet-2012")).rows}
    whole = sum(rows.values())
    truth = 100 * rows["conv3"] / whole
    mistakes = [
        (truth / 100, "that is a fraction of 1: times 100."),
        (100 * rows["conv4"] / whole, "that is conv4's: conv3's kernels see both columns."),
        (50 * rows["conv3"] / whole, "that is as if a kernel saw its own column alone: conv3 sees 256 channels."),
    ]
    hint = "384 kernels of 3 × 3 × 256 and their biases, of 60,965,224."
    same_number(answer, truth, "the share in percent", mistakes, hint=hint, tolerance=6e-3)
    return f'{truth:.2f} %, so the paper\'s "no more than 1%" is a little too modest here.'


@exercise
def without_conv4(answer: Any) -> str:
    """Parameters of the paper's network without conv4."""
    recipe = load("alexnet-2012")
    whole = summarise(recipe).parameters
    truth = summarise(recipe.replace(omit=("conv4",))).parameters
    mistakes = [
        (whole - truth, "that is what conv4 has: take it from the whole."),
        (whole - 2 * (whole - truth), "conv4's kernels see the 192 channels of their own column, not 384."),
        (truth + 384, "conv4's biases go with its weights."),
    ]
    hint = "conv5 sees as many channels as before, so that nothing else changes."
    same_number(answer, truth, "the number of parameters", mistakes, hint=hint, tolerance=1e-12)
    return f"{truth:,}: {100 * (whole - truth) / whole:.1f} % fewer, and the paper lost about 2 points by it."
