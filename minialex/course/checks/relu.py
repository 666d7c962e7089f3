"""Checks of notebook 03: the rectified linear unit."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import NotYet, call, exercise, number, random, reference, same_array, same_number


@exercise
def relu_gradient(answer: Any) -> str:
    """A function (dy, y) -> dx of the rectified linear unit, y being its output."""
    x, dy = random("relu/x", 4, 6), random("relu/dy", 4, 6)
    x[0, :2] = 0.0  # the corner itself
    y = reference("relu", x)
    truth = reference("relu_backward", dy, y)
    mistakes = [
        (np.maximum(dy, 0), "that cuts the gradient where dy is negative; it is y that decides."),
        (dy, "nothing is cut: where y is 0 the unit is silent and passes nothing back. (y is never negative, so "
         "y >= 0 holds everywhere: use y > 0.)"),
        (dy * y, "the slope is 1 where the unit is on, not y."),
        ((y > 0).astype(float), "that is the slope alone; multiply it with dy."),
    ]  # fmt: skip
    same_array(call(answer, dy, y), truth, "dx", mistakes, axes=("n", "d"))
    return "dy where the unit is on, 0 where it is silent, also in the corner."


@exercise
def sigmoid_chain(answer: Any) -> str:
    """The most that five sigmoids in a row can pass back of a gradient (weights of 1)."""
    z = np.linspace(-10, 10, 20_001)
    sigmoid = 1 / (1 + np.exp(-z))
    steepest = float((sigmoid * (1 - sigmoid)).max())
    tanh = float(reference("tanh_backward", np.ones_like(z), np.asarray(reference("tanh", z))).max())
    mistakes = [
        (steepest, "that is the steepest slope of one sigmoid; five in a row multiply."),
        (5 * steepest, "slopes in a row multiply, they do not add up (the chain rule)."),
        (tanh**5, "that is right for tanh; the sigmoid is flatter."),
        (1 / steepest**5, "turned over: the gradient gets smaller."),
    ]
    hint = "Where is the sigmoid steepest, and how steep is it there? Five slopes multiply."
    same_number(answer, steepest**5, "the factor", mistakes, hint=hint)
    return f"{steepest**5:.2g}: after five layers less than a thousandth is left, at best."


@exercise
def steps_to(answer: Any) -> str:
    """A function (errors, level) -> the first index at which the error is at or below the level, or -1."""
    falling = np.array([0.9, 0.7, 0.52, 0.45, 0.5, 0.31, 0.2])
    for errors, level in ((falling, 0.5), (falling, 0.2), (falling, 0.1), (falling, 0.95)):
        reached = np.flatnonzero(errors <= level)
        truth = int(reached[0]) if len(reached) else -1
        given = f"steps_to({np.array2string(errors, separator=', ')}, {level})"
        result = number(call(answer, errors, level), given)
        if result == truth:
            continue
        below = np.flatnonzero(errors < level)
        if truth == -1:
            raise NotYet(f"{given} is {result:g}: the level is never reached, which should give -1.")
        if len(reached) and result == reached[-1]:
            raise NotYet(f"{given} is {result:g}: that is the last such place, we want the first.")
        if result == (below[0] if len(below) else -1):
            raise NotYet(f"{given} is {result:g}: an error that is exactly {level} has reached it (use <=).")
        if result == truth + 1:
            raise NotYet(f"{given} is {result:g}, one too many: places count from 0.")
        raise NotYet(f"{given} is {result:g}, and errors[{truth}] is the first that is at most {level}.")
    return "the first place at or below the level, and -1 where there is none."
