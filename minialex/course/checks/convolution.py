"""Checks of notebook 02: convolution and its gradient by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.course.checks.feedback import NotYet, as_array, call, exercise, random, reference, same_array, same_number


@exercise
def shift_kernel(answer: Any) -> str:
    """A 3 × 3 kernel that moves an image one pixel to the right."""
    image = random("shift", 1, 1, 6, 7)

    def convolved(kernel: NDArray[Any]) -> NDArray[Any]:
        w, b = np.ascontiguousarray(kernel[None, None]), np.zeros(1)
        return np.asarray(reference("conv2d", image, w, b, stride=1, padding=((1, 1), (1, 1)))[0, 0])

    truth = np.zeros((6, 7))
    truth[:, 1:] = image[0, 0, :, :-1]
    kernel = as_array(answer, "the kernel").astype(np.float64)
    if kernel.shape != (3, 3):
        raise NotYet(f"the kernel should be 3 × 3, and yours has the shape {list(kernel.shape)}.")
    left, middle = np.zeros((6, 7)), image[0, 0]
    left[:, :-1] = image[0, 0, :, 1:]
    down = np.zeros((6, 7))
    down[1:] = image[0, 0, :-1]
    mistakes = [
        (left, "that moves the image to the left: the kernel is laid on the image as it is, not turned around. "
         "A pixel of the result must read its left neighbour."),
        (middle, "that leaves the image where it is."),
        (down, "that moves the image down: rows come first, columns second."),
        (np.zeros((6, 7)), "all zeros give an image of zeros: one weight must be 1."),
    ]  # fmt: skip
    hint = "Each pixel of the result should be its left neighbour's old value: which one weight is 1?"
    same_array(convolved(kernel), truth, "the image after your kernel", mistakes, axes=("i", "j"), hint=hint)
    return "each pixel reads its left neighbour, and the image moves to the right."


@exercise
def slope(answer: Any) -> str:
    """A function (f, x, h) -> the central difference quotient of f at x."""
    cases = ((np.square, 3.0, 0.5), (np.exp, 0.3, 0.1), (np.sin, 1.0, 0.25))
    for f, x, h in cases:
        truth = (f(x + h) - f(x - h)) / (2 * h)
        forward = (f(x + h) - f(x)) / h
        mistakes = [
            (forward, "that goes one step forward only; go h to both sides: the error falls with h²."),
            ((f(x) - f(x - h)) / h, "that goes one step back only; go h to both sides."),
            (2 * truth, "the two points are 2h apart: divide by that."),
            (-truth, "the sign is turned: right minus left."),
        ]  # fmt: skip
        same_number(call(answer, f, x, h), truth, f"slope(np.{f.__name__}, {x}, {h})", mistakes)
    return "the central difference: its error falls with h²."


@exercise
def weight_gradient(answer: Any) -> str:
    """A function (dy, x, size, stride) -> dw of a convolution without padding."""
    for N, C, K, size, stride, H in ((2, 3, 4, 3, 1, 6), (2, 2, 3, 3, 2, 9)):
        x, w = random("x", N, C, H, H), random("w", K, C, size, size)
        padding = ((0, 0), (0, 0))
        y = reference("conv2d", x, w, np.zeros(K), stride=stride, padding=padding)
        dy = random("dy", *y.shape)
        _, truth, _ = reference("conv2d_backward", dy, x, w, stride=stride, padding=padding, need_dx=False)
        unstrided = np.zeros_like(w)
        if stride > 1:
            P = y.shape[2]
            for r in range(size):
                for s in range(size):
                    unstrided[:, :, r, s] = np.einsum("nkpq,ncpq->kc", dy, x[:, :, r : r + P, s : s + P])
        result = call(answer, dy, x, size, stride)
        mistakes = [
            (truth.swapaxes(2, 3), "rows and columns of the kernel are exchanged."),
            (truth[:, :, ::-1, ::-1], "the kernel is turned around: dw[r, s] goes with row p·stride + r."),
            (truth / N, "do not take the mean over the images: the loss has done that."),
            (unstrided, "the stride is missing: place p begins at row p · stride."),
            (truth.swapaxes(0, 1), "the axes should be [K, C, R, S], the kernels first."),
        ]  # fmt: skip
        hint = "Every output that a weight has touched gives it dy · x: add up over n, p and q."
        same_array(
            result,
            truth,
            f"dw for kernels of {size} × {size} at stride {stride}",
            mistakes,
            axes=("k", "c", "r", "s"),
            hint=hint,
        )
    return "the same numbers as the reference, at stride 1 and 2."
