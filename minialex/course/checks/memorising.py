"""Checks of notebook 20: generalisation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, random, same_array, same_number


@exercise
def label_bits(answer: Any) -> str:
    """A function (images, classes) -> bits that it takes to write down all labels."""
    for images, classes in ((500, 10), (1_281_167, 1000)):
        truth = images * math.log2(classes)
        mistakes = [
            (math.log2(classes), "that is for one image; there are many."),
            (images * math.log(classes), "that is in units of e: take the logarithm to base 2."),
            (images * math.log10(classes), "that is in decimal digits: take the logarithm to base 2."),
            (images * classes, "a label is one of so many, and not a bit for each: n bits tell 2^n classes apart."),
            (truth / 8, "that is in bytes; give bits."),
        ]
        hint = "n bits tell 2^n classes apart, so a label has log2(classes) of them."
        same_number(call(answer, images, classes), truth, f"label_bits({images}, {classes})", mistakes, hint=hint)
    return f"{truth:,.0f} bits in all of ImageNet's labels, and the network has 60,965,224 numbers of 32 bits."


@exercise
def smallest_fit(answer: Any) -> str:
    """A function (A [N,D] with D > N, y [N]) -> the weights [D] of the least norm with A w = y."""
    for examples, numbers in ((4, 9), (6, 20)):
        A, y = random(f"fit/{numbers}", examples, numbers), random(f"fit/y/{numbers}", examples)
        truth = np.linalg.pinv(A) @ y
        found = call(answer, A, y)
        only = np.zeros(numbers)
        only[:examples] = np.linalg.solve(A[:, :examples], y)
        mistakes = [
            (only, "it fits, but with the first columns alone: of all that fit, the smallest is wanted."),
            (A.T @ y, "the inverse of A Aᵀ is missing between Aᵀ and y."),
            (np.linalg.solve(A.T @ A + 1e-2 * np.eye(numbers), A.T @ y), "a penalty keeps it from fitting exactly."),
        ]
        hint = "Among the weights that fit, the smallest are Aᵀ (A Aᵀ)⁻¹ y: np.linalg.pinv(A) @ y, too."
        same_array(found, truth, "the weights", mistakes, hint=hint, axes=("d",), tolerance=1e-5)
    return "it fits every example, and there is no smaller one that does."
