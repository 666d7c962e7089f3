"""Answers to the exercises of notebook 06, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: on generated shapes, moved by 1 and by 8 pixels: max 3/2 0.24 and 0.80,
mean 3/2 0.19 and 0.86, max 5/2 0.15 and 0.57. A measure of the loss: how often the nearest map of a moved
image is that of another image, or the error of a nearest-neighbour classifier on the pooled maps.
"""

import numpy as np


def max_pool(x, size, stride, reduce=np.max):
    P = (len(x) - size) // stride + 1
    y = np.empty((P, P))
    for p in range(P):
        for q in range(P):
            y[p, q] = reduce(
                x[p * stride : p * stride + size, q * stride : q * stride + size]
            )
    return y


dx = np.zeros((5, 5))
dx[2, 2] = 4

RIGHT = {"max_pool": max_pool, "windows_of_a_pixel": 4, "pool_gradient": dx}
WRONG = {
    "max_pool": [
        (lambda x, size, stride: np.maximum(max_pool(x, size, stride), 0), "begins at 0"),
        (lambda x, size, stride: max_pool(x, size, stride, np.mean), "mean of each window"),
        (lambda x, size, stride: max_pool(x, size, size), "do not overlap"),
        (lambda x, size, stride: max_pool(x, size, 1), "stride is missing"),
        (lambda x, size, stride: max_pool(x, stride, stride), "they should have `size`"),
        (lambda x, size, stride: max_pool(x, size, stride, np.min), "numbers differ"),
        (lambda x, size, stride: x, "shape"),
    ],
    "windows_of_a_pixel": [
        (1, "without overlap"),
        (2, "one axis"),
        (9, "stride 1"),
        (5, "too large"),
        ("4", "number"),
    ],
    "pool_gradient": [
        (dx / 4, "adds up"),
        (dx / 4 * 7, "not the value"),
        (np.ones((5, 5)), "only the maximum"),
        (dx.T * 2, "the library has 4"),
        (np.ones((2, 2)), "shape"),
    ],
}
