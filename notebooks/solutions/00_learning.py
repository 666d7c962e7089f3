"""Answers to the exercises of notebook 00, right ones and typical wrong ones with words that the feedback must hold.

What to expect of the two open ones: zeros: both matrices and the first biases stay zero (h = 0, so dw2 = 0;
w2 = 0, so dh = 0), only the second biases move; 90% wrong. Random labels: about 35% and 16% wrong in
training, about 90% of new images: the network memorises, the more neurons the better, and has learned
nothing.
"""

import numpy as np


def neuron_slopes(w, x, b, t):
    z = w @ x + b
    dz = (max(z, 0) - t) * (z > 0)
    return dz * x, dz


def logit_slopes(z, c):
    e = np.exp(z - z.max())
    return e / e.sum() - (np.arange(len(z)) == c)


def unsafe(z, c):
    e = np.exp(z)
    return e / e.sum() - (np.arange(len(z)) == c)


RIGHT = {
    "neuron_slopes": neuron_slopes,
    "logit_slopes": logit_slopes,
    "training_steps": 1_281_167 // 128 * 90,
}
WRONG = {
    "neuron_slopes": [
        (
            lambda w, x, b, t: tuple(-d for d in neuron_slopes(w, x, b, t)),
            "sign is turned",
        ),
        (
            lambda w, x, b, t: tuple(2 * d for d in neuron_slopes(w, x, b, t)),
            "half a square",
        ),
        (lambda w, x, b, t: (neuron_slopes(w, x, b, t)[1] * w, 0.0), "slope along x"),
        (
            lambda w, x, b, t: (
                (max(w @ x + b, 0) - t) * x,
                max(w @ x + b, 0) - t,
            ),
            "silent",
        ),
        (lambda w, x, b, t: neuron_slopes(w, x, b, t)[0], "two values"),
        (lambda w, x, b, t: (neuron_slopes(w, x, b, t)[0], 1.0), "z changes by 1"),
        (lambda w, x, b, t: (neuron_slopes(w, x, b, t)[0], x), "one number"),
    ],
    "logit_slopes": [
        (lambda z, c: -logit_slopes(z, c), "sign is turned"),
        (lambda z, c: logit_slopes(z, c) + (np.arange(len(z)) == c), "that is p"),
        (lambda z, c: logit_slopes(z, c) * logit_slopes(z, -1), "in p − y already"),
        (unsafe, "not finite"),
    ],
    "training_steps": [
        (1_281_167 // 128, "one epoch"),
        (1_281_167 * 90, "a step takes 128"),
        (10_010 * 90, "not full"),
        (1_281_167 / 128 * 90, "whole"),
        (90, "too small"),
    ],
}
