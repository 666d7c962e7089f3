"""Answers to the exercises of notebook 12.

What to expect of the two open ones: five (67 + 5 · 32 = 227); with stride 2 in conv1 each adds 16 and pool2
sees 39, so twelve. Seeds (not run; what we expect): the interval of five pairs includes zero; the number of
seeds needed grows with the square of the scatter over the difference.
"""

import math

CONV3, CONV4, ALL = 884_736 + 384, 384 * 192 * 9 + 384, 60_965_224


def receptive_rows(windows):
    rows, step = 1, 1
    for size, stride in windows:
        rows += (size - 1) * step
        step *= stride
    return rows


RIGHT = {
    "share_of_conv3": 100 * CONV3 / ALL,
    "without_conv4": ALL - CONV4,
    "receptive_rows": receptive_rows,
}
WRONG = {
    "share_of_conv3": [
        (CONV3 / ALL, "fraction"),
        (100 * CONV4 / ALL, "both columns"),
        (50 * CONV3 / ALL, "256 channels"),
        (30, "too large"),
    ],
    "without_conv4": [
        (CONV4, "from the whole"),
        (ALL - 2 * CONV4, "own column"),
        (ALL - CONV4 + 384, "biases"),
        (1, "too small"),
    ],
    "receptive_rows": [
        (lambda windows: sum(size - 1 for size, _ in windows) + 1, "strides before it"),
        (lambda windows: math.prod(size for size, _ in windows), "do not multiply"),
        (lambda windows: 11, "too small"),
    ],
}
