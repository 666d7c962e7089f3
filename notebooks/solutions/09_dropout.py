"""Answers to the exercises of notebook 09.

What to expect of the two open ones: by the probability of speaking, 0.9 or 0.1; still exact, since the logits
are linear in the mask and the mean of the mask is that number. Rate 0.9 (not run; what we expect): both
errors are large and the gap is near zero or negative, since the network underfits; to tell 0.3 from 0.5 takes
several seeds.
"""

import numpy as np


def geometric_mean(probs):
    mean = np.exp(np.log(probs).mean(axis=0))
    return mean / mean.sum()


RIGHT = {
    "silent_pairs": 1 / 4,
    "geometric_mean": geometric_mean,
    "inverted_dropout": lambda x, mask, rate: x * mask / (1 - rate),
}
WRONG = {
    "silent_pairs": [
        (0.5, "independently"),
        (0.75, "at least one"),
        (0.1, "too small"),
        ("1/4", "should be a number"),
    ],
    "geometric_mean": [
        (lambda probs: np.exp(np.log(probs).mean(axis=0)), "do not add up to 1"),
        (lambda probs: probs.mean(axis=0), "arithmetic"),
        (lambda probs: probs.prod(axis=0) / probs.prod(axis=0).sum(), "root"),
        (lambda probs: probs, "shape"),
    ],
    "inverted_dropout": [
        (lambda x, mask, rate: x * mask, "nothing is scaled"),
        (lambda x, mask, rate: x * mask * (1 - rate), "even smaller"),
        (
            lambda x, mask, rate: x * mask / (1 - rate) if rate == 0.5 else x * mask / rate,
            "what speaks",
        ),
        (lambda x, mask, rate: x * (1 - mask) / (1 - rate), "1 where the neuron speaks"),
    ],
}
