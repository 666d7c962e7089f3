"""Answers to the exercises of notebook 01, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: 256: fc6 alone gets more parameters (pool5 gives 7 × 7 places instead of
6 × 6), in all +22%; all convolutions and fc6 do more multiplications, in all +32%. Half as wide: conv1 and
fc8 to a half (their inputs, or their outputs, do not shrink), all others to about a quarter; 27% of the
parameters and 29% of the multiplications are left.
"""

import numpy as np

from minialex.engine.summary import PAPER_TOTALS


def brighter(image):
    return np.minimum(image.astype(int) + 60, 255).astype(np.uint8)


def rows_after(rows, kernel, stride, padding):
    return (rows + padding - kernel) // stride + 1


parameters_in_one_column = (
    11 * 11 * 3 * 96 + 96
    + 5 * 5 * 96 * 256 + 256
    + 3 * 3 * 256 * 384 + 384
    + 3 * 3 * 384 * 384 + 384
    + 3 * 3 * 384 * 256 + 256
    + 9216 * 4096 + 4096
    + 4096 * 4096 + 4096
    + 4096 * 1000 + 1000
)  # fmt: skip

RIGHT = {
    "brighter": brighter,
    "rows_after": rows_after,
    "one_column_parameters": parameters_in_one_column,
}
WRONG = {
    "brighter": [
        (lambda image: image + np.uint8(60), "dark"),
        (lambda image: image.astype(int) + 60, "above 255"),
        (lambda image: image, "as it was"),
        (lambda image: np.minimum(image.astype(int) + 60, 255), "type is int"),
        (lambda image: np.minimum(image.astype(int) + 50, 255), "numbers differ"),
        (lambda image: image[0], "shape"),
        (lambda image: 1 // 0, "ZeroDivisionError"),
    ],
    "rows_after": [
        (
            lambda rows, kernel, stride, padding: (rows + padding - kernel) / stride + 1,
            "counted whole",
        ),
        (
            lambda rows, kernel, stride, padding: (
                -(-(rows + padding - kernel) // stride) + 1
            ),
            "hangs over the edge",
        ),
        (
            lambda rows, kernel, stride, padding: (rows + padding - kernel) // stride,
            "one too few",
        ),
        (
            lambda rows, kernel, stride, padding: (
                (rows + 2 * padding - kernel) // stride + 1
            ),
            "together",
        ),
        (
            lambda rows, kernel, stride, padding: (rows - kernel) // stride + 1,
            "padding is missing",
        ),
        (lambda rows: rows, "TypeError"),
        (55, "should be a function"),
    ],
    "one_column_parameters": [
        (PAPER_TOTALS["parameters"], "two columns"),
        (parameters_in_one_column - 10_568, "bias"),
        (60_000_000, "too small"),
        ("62 million", "should be a number"),
    ],
}
