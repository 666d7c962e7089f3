"""Checks of notebook 09: dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, same_array, same_number


@exercise
def geometric_mean(answer: Any) -> str:
    """A function: probabilities [M,K] of M networks -> the normalised geometric mean [K]."""
    logits = np.random.default_rng(9).normal(0, 2, (6, 5))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    products = np.exp(np.log(probs).mean(axis=0))
    arithmetic = probs.mean(axis=0)
    mistakes = [
        (products, "the geometric means do not add up to 1: divide them by their sum."),
        (arithmetic, "that is the arithmetic mean: add logarithms, not probabilities."),
        (probs.prod(axis=0) / probs.prod(axis=0).sum(), "that is the product: take its M-th root (the mean of the "
         "logarithms) before you normalise."),
    ]  # fmt: skip
    hint = "The geometric mean of M numbers is exp of the mean of their logarithms; then make them add up to 1."
    same_array(
        call(answer, probs), products / products.sum(), "the mean distribution", mistakes, axes=("k",), hint=hint
    )
    return "one distribution, in which a class that any network thinks impossible is impossible."


@exercise
def inverted_dropout(answer: Any) -> str:
    """A function (x, mask, rate) -> dropout that is already scaled in training, as most libraries have it."""
    random = np.random.default_rng(4)
    x = random.normal(0, 1, (2, 6))
    mask = np.array([[1, 0, 1, 1, 0, 1], [0, 1, 1, 0, 1, 1]], np.uint8)
    for rate in (0.5, 0.2):
        mistakes = [
            (x * mask, "that is the paper's dropout: nothing is scaled in training."),
            (x * mask * (1 - rate), "the expected value has become even smaller: divide by 1 − rate."),
            (x * mask / rate, "rate is the probability of being silent: what speaks does so with 1 − rate."),
            (x * (1 - mask) / (1 - rate), "the mask is 1 where the neuron speaks."),
        ]
        same_array(
            call(answer, x, mask, rate), x * mask / (1 - rate), f"the result for rate {rate}", mistakes, axes=("n", "d")
        )
    return "on average it gives x, so that at test time there is nothing to do."


@exercise
def silent_pairs(answer: Any) -> str:
    """The probability that two given neurons of a layer speak together, for the paper's rate."""
    mistakes = [
        (0.5, "that is one neuron's; both must speak, and they are drawn independently."),
        (0.75, "that is the probability that at least one of them speaks."),
    ]
    same_number(answer, 0.25, "the probability", mistakes, hint="Independent events: multiply.")
    return "a neuron meets any given partner in a quarter of the steps only: it had better be of use without it."
