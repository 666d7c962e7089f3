"""Checks of notebook 10: the update rule of section 5."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.course.checks.feedback import NotYet, call, exercise, same_array, same_number


@cache
def _reference() -> Backend:
    return registry.load("numpy")


def _library(w: Any, v: Any, dw: Any, rate: float, momentum: float, decay: float) -> tuple[Any, Any]:
    """New weights and velocity by the reference's `sgd_update`."""
    backend = _reference()
    on = [backend.to_device(np.array(a), "cpu:0") for a in (w, v, dw)]
    backend.sgd_update(*on, learning_rate=rate, momentum=momentum, weight_decay=decay)
    return backend.to_numpy(on[0]), backend.to_numpy(on[1])


@exercise
def paper_update(answer: Any) -> str:
    """A function (w, v, dw, rate, momentum, decay) -> (new w, new v), by section 5."""
    random = np.random.default_rng(5)
    w, v, dw = (random.normal(0, 1, (2, 3)) for _ in range(3))
    rate, momentum, decay = 0.1, 0.9, 0.05
    result = call(answer, w, v, dw, rate, momentum, decay)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise NotYet("return two arrays: the new weights and the new velocity.")
    true_w, true_v = _library(w, v, dw, rate, momentum, decay)
    torch_v = momentum * v + dw + decay * w
    mistakes = [
        (torch_v, "that is PyTorch's velocity: in the paper the learning rate is inside, with a minus."),
        (momentum * v - rate * dw, "the weight decay is missing."),
        (momentum * v - decay * w - rate * dw, "the decay is multiplied by the learning rate, too."),
        (momentum * v + decay * rate * w + rate * dw, "both terms are subtracted: one goes down the hill."),
        (result[0], "the velocity comes second: return (w, v)."),
    ]
    same_array(result[1], true_v, "the new velocity", mistakes, axes=("i", "j"))
    mistakes = [
        (w + v, "that moves by the old velocity: the new one is computed first."),
        (w - true_v, "the velocity is added: its minus is inside already."),
        (w - rate * true_v, "the learning rate is in the velocity already."),
    ]
    same_array(result[0], true_w, "the new weights", mistakes, axes=("i", "j"))
    return "the same numbers as the library's sgd_update."


@exercise
def final_velocity(answer: Any) -> str:
    """Where the velocity ends under a constant gradient of 1, for ε = 0.01 and momentum 0.9, without decay."""
    w, v, one = np.zeros(1), np.zeros(1), np.ones(1)
    for _ in range(500):
        w, v = _library(w, v, one, 0.01, 0.9, 0.0)
    mistakes = [
        (-float(v[0]), "the weight falls: the velocity is negative."),
        (-0.01, "that is the first step's. The next one keeps 0.9 of it and adds as much again."),
    ]
    hint = "It stays as it is when v = 0.9·v − ε: solve for v."
    same_number(answer, float(v[0]), "the velocity", mistakes, hint=hint, tolerance=1e-3)
    return "ten times a single step: momentum 0.9 multiplies the rate by 1/(1 − 0.9) where the way is straight."


@exercise
def halving_steps(answer: Any) -> str:
    """Steps in which decay alone halves a weight: ε = 0.01, decay 0.0005, no momentum, no gradient."""
    truth = math.log(0.5) / math.log(1 - 0.01 * 0.0005)
    mistakes = [
        (math.log(0.5) / math.log(1 - 0.0005), "the decay is multiplied by the learning rate in each step."),
        (0.5 / (0.01 * 0.0005), "each step takes a part of what is left: it is a power, not a sum."),
    ]
    same_number(
        answer, truth, "the number of steps", mistakes, hint="After n steps (1 − ε·decay)ⁿ is left.", tolerance=2e-4
    )
    epoch = 1_281_167 // 128
    return f"about {truth:,.0f} steps, {truth / epoch:.0f} epochs of ImageNet: a gentle pull."
