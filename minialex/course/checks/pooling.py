"""Checks of notebook 06: overlapping max-pooling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.course.checks.feedback import call, exercise, random, reference, same_array, same_number


@exercise
def max_pool(answer: Any) -> str:
    """A function (x, size, stride) -> the pooled image; x [H,W], whole windows only."""

    def pooled(x: NDArray[Any], size: int, stride: int, ceil: bool = False) -> NDArray[Any]:
        return np.asarray(reference("max_pool2d", x[None, None], size=size, stride=stride, ceil=ceil)[0, 0])

    for rows, size, stride in ((7, 3, 2), (8, 2, 2), (8, 3, 2)):
        x = random(f"pool{rows}{size}", rows, rows) - 3.0  # all below zero
        means = np.lib.stride_tricks.sliding_window_view(x, (size, size))[::stride, ::stride].mean(axis=(2, 3))
        mistakes = [
            (np.maximum(pooled(x, size, stride), 0), "a maximum that begins at 0 cannot go below it: begin with "
             "the first value of the window, or with -np.inf."),
            (means, "that is the mean of each window; take the greatest."),
            (pooled(x, size, size), "those do not overlap: the next begins after `stride` rows, not `size`."),
            (pooled(x, size, 1), "the stride is missing: the next window begins `stride` rows further."),
            (pooled(x, stride, stride), "those windows have `stride` rows; they should have `size`."),
            (pooled(x, size, stride, ceil=True), "the last windows hang over the edge; only whole ones count."),
        ]  # fmt: skip
        same_array(
            call(answer, x, size, stride),
            pooled(x, size, stride),
            f"max_pool of {rows} × {rows} with size {size} and stride {stride}",
            mistakes,
            axes=("p", "q"),
        )
    return "windows of any size at any stride, also below zero."


@exercise
def windows_of_a_pixel(answer: Any) -> str:
    """In how many windows a pixel is at most, for windows of 3 × 3 at stride 2."""

    def at_most(size: int, stride: int) -> int:
        counts = []
        for place in np.ndindex(9, 9):
            x = np.zeros((1, 1, 9, 9))
            x[0, 0][place] = 1.0
            counts.append(int(reference("max_pool2d", x, size=size, stride=stride, ceil=False).sum()))
        return max(counts)

    truth = at_most(3, 2)
    mistakes = [
        (at_most(2, 2), "so it is without overlap (2 × 2 at stride 2)."),
        (math.isqrt(truth), "that is along one axis; windows overlap in rows and in columns."),
        (at_most(3, 1), "so it would be at stride 1; only every other window is there."),
    ]
    hint = "Draw 5 × 5 pixels and the four windows in them: which pixel do they share?"
    same_number(answer, truth, "the number of windows", mistakes, hint=hint)
    return f"{truth}: the pixel in the corner that four windows share."


@exercise
def pool_gradient(answer: Any) -> str:
    """Gradient dx [5,5] of 3/2 pooling of an image that is zero but for its middle, which is 7; dy is all ones."""
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 7.0

    def gradient(size: int, stride: int) -> NDArray[Any]:
        y = reference("max_pool2d", x, size=size, stride=stride, ceil=False)
        how = {"size": size, "stride": stride, "ceil": False, "ties": "first"}
        return np.asarray(reference("max_pool2d_backward", np.ones_like(y), x, y, **how)[0, 0])

    truth = gradient(3, 2)
    one = (truth > 0).astype(float)
    mistakes = [
        (one, "all four windows have their maximum there; what they give back adds up."),
        (7.0 * one, "the gradient is dy, not the value of the pixel."),
        (truth / 4, "it is the sum over the windows, not their mean."),
        (np.ones((5, 5)), "only the maximum of a window gets something back, not every pixel."),
        (gradient(2, 2), "those windows have 2 rows; the paper's have 3."),
    ]
    same_array(
        answer, truth, "dx", mistakes, axes=("i", "j"), hint="Which windows contain the 7? Each gives its dy to it."
    )
    return "one pixel gets everything, four times; the other 24 learn nothing from this image."
