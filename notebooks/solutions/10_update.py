"""Answers to the exercises of notebook 10.

What to expect of the two open ones: without momentum at 2/3 (2 over the larger curvature 3), with momentum
0.9 at 2 · 1.9 / 3 = 1.27, which is larger. Best: momentum near 0.5 with a rate near 0.95 (theory: ((√30 −
1)/(√30 + 1))² = 0.48); a longer valley moves it towards 1.
"""

import math


def paper_update(w, v, dw, rate, momentum, decay):
    v = momentum * v - decay * rate * w - rate * dw
    return w + v, v


def pytorch(w, v, dw, rate, momentum, decay):
    v = momentum * v + dw + decay * w
    return w - rate * v, v


def moves_by_the_old(w, v, dw, rate, momentum, decay):
    return w + v, paper_update(w, v, dw, rate, momentum, decay)[1]


def rate_twice(w, v, dw, rate, momentum, decay):
    new = paper_update(w, v, dw, rate, momentum, decay)[1]
    return w - rate * new, new


RIGHT = {
    "paper_update": paper_update,
    "final_velocity": -0.01 / (1 - 0.9),
    "halving_steps": math.log(0.5) / math.log(1 - 0.01 * 0.0005),
}
WRONG = {
    "paper_update": [
        (pytorch, "PyTorch"),
        (
            lambda w, v, dw, rate, momentum, decay: (w, momentum * v - rate * dw),
            "decay is missing",
        ),
        (
            lambda w, v, dw, rate, momentum, decay: (
                w,
                momentum * v - decay * w - rate * dw,
            ),
            "learning rate, too",
        ),
        (moves_by_the_old, "the new one is computed first"),
        (rate_twice, "already"),
        (lambda *numbers: numbers[0], "two arrays"),
        (lambda *numbers: paper_update(*numbers)[::-1], "numbers differ"),
    ],
    "final_velocity": [(0.1, "negative"), (-0.01, "first step"), (-1.0, "too small")],
    "halving_steps": [
        (math.log(0.5) / math.log(1 - 0.0005), "multiplied by the learning rate"),
        (0.5 / (0.01 * 0.0005), "a power"),
        (1000, "too small"),
    ],
}
