"""Answers to the exercises of notebook 03, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: tanh: larger, about 1.3 (every layer saturates a little, and larger
weights make up for it); at twice that the gradient grows about a hundredfold. ReLU (not run as an exercise):
the scale of the pixels with the initial weights decides, and the range of rates; chapter 4 shows both ends.
Report the rates that were tried, and the factor as a function of them.
"""

import numpy as np


def relu_gradient(dy, y):
    return dy * (y > 0)


def steps_to(errors, level):
    reached = np.flatnonzero(errors <= level)
    return reached[0] if len(reached) else -1


RIGHT = {"relu_gradient": relu_gradient, "sigmoid_chain": 0.25**5, "steps_to": steps_to}
WRONG = {
    "relu_gradient": [
        (lambda dy, y: np.maximum(dy, 0), "y that decides"),
        (lambda dy, y: dy * (y >= 0), "use y > 0"),
        (lambda dy, y: dy * y, "slope is 1"),
        (lambda dy, y: dy, "nothing is cut"),
        (lambda dy, y: y > 0, "slope alone"),
        (lambda dy, y: -dy * (y > 0), "numbers differ"),
    ],
    "sigmoid_chain": [
        (0.25, "multiply"),
        (1.25, "chain rule"),
        (1, "tanh"),
        (1024, "turned over"),
        (0.5**5, "steepest"),
        ("tiny", "should be a number"),
    ],
    "steps_to": [
        (
            lambda errors, level: (
                np.flatnonzero(errors < level)[0] if (errors < level).any() else -1
            ),
            "exactly",
        ),
        (
            lambda errors, level: (
                np.flatnonzero(errors <= level)[-1] if (errors <= level).any() else -1
            ),
            "last such",
        ),
        (lambda errors, level: int(np.argmax(errors <= level)), "never reached"),
        (lambda errors, level: steps_to(errors, level) + 1, "count from 0"),
        (lambda errors, level: 0, "is the first that"),
        (lambda errors, level: np.flatnonzero(errors <= level)[0], "IndexError"),
    ],
}
