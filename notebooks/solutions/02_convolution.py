"""Answers to the exercises of notebook 02, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: blur: 5 × 5, the outer product of (1, 2, 3, 2, 1) with itself, divided by
81; 9/81 in the middle, 1/81 in the corners. Gradient: `conv2d(dy, w[:, :, ::-1, ::-1].swapaxes(0, 1), zeros,
stride=1, padding=((R - 1, R - 1), (S - 1, S - 1)))`.
"""

import numpy as np

to_the_right = np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]])


def slope(f, x, h):
    return (f(x + h) - f(x - h)) / (2 * h)


def weight_gradient(dy, x, size, stride):
    P, Q = dy.shape[2:]
    dw = np.zeros((dy.shape[1], x.shape[1], size, size))
    for r in range(size):
        for s in range(size):
            for p in range(P):
                for q in range(Q):
                    dw[:, :, r, s] += (
                        dy[:, :, p, q].T @ x[:, :, p * stride + r, q * stride + s]
                    )
    return dw


RIGHT = {"shift_kernel": to_the_right, "slope": slope, "weight_gradient": weight_gradient}
WRONG = {
    "shift_kernel": [
        (to_the_right[:, ::-1], "to the left"),
        (to_the_right.T, "down"),
        (np.zeros((3, 3)), "all zeros"),
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], "where it is"),
        (np.ones((3, 3)) / 9, "left neighbour"),
        (np.ones((5, 5)), "should be 3 × 3"),
    ],
    "slope": [
        (lambda f, x, h: (f(x + h) - f(x)) / h, "forward only"),
        (lambda f, x, h: (f(x + h) - f(x - h)) / h, "2h apart"),
        (lambda f, x, h: (f(x - h) - f(x + h)) / (2 * h), "sign"),
        (lambda f, x, h: f(x), "too large"),
        (lambda f, x: f(x), "TypeError"),
    ],
    "weight_gradient": [
        (lambda *given: weight_gradient(*given).swapaxes(2, 3), "exchanged"),
        (lambda *given: weight_gradient(*given)[:, :, ::-1, ::-1], "turned around"),
        (lambda dy, x, size, stride: weight_gradient(dy, x, size, stride) / len(x), "mean"),
        (lambda dy, x, size, stride: weight_gradient(dy, x, size, 1), "stride is missing"),
        (
            lambda dy, x, size, stride: weight_gradient(dy, x, size, stride).sum(axis=1),
            "shape",
        ),
        (
            lambda dy, x, size, stride: 2 * weight_gradient(dy, x, size, stride),
            "numbers differ",
        ),
    ],
}
