"""Checks of notebook 00: a network learns."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import (
    NotYet,
    as_array,
    call,
    exercise,
    random,
    reference,
    refuse_placeholder,
    same_array,
    same_number,
)
from minialex.recipe.toml import load

PICTURES = 1_281_167
"""Of the training set of ILSVRC-2012."""


@exercise
def neuron_slopes(answer: Any) -> str:
    """A function (w, x, b, t) -> (dw, db), the slopes of ½ (max(0, w·x + b) − t)²."""
    for name, b in (("speaks", 4.0), ("is silent", -9.0)):
        w, x, t = random("neuron/w", 3), random("neuron/x", 3), 1.0
        z = reference("linear", x[None], w[None], np.array([b]))
        y = reference("relu", z)
        dz = reference("relu_backward", y - t, y)
        _, dw, db = reference("linear_backward", dz, x[None], w[None], need_dx=True)
        found = call(answer, w, x, b, t)
        if not isinstance(found, tuple | list) or len(found) != 2:
            raise NotYet("return two values: dw, an array as long as w, and db, a number.")
        for part in found:
            refuse_placeholder(part)
        where = f"dw of a neuron that {name}"
        mistakes = [
            (-dw[0], "the sign is turned: the slope of ½ (y − t)² along y is y − t."),
            (2 * dw[0], "twice too large: half a square has the slope y − t."),
            (dz[0] * w, "that is the slope along x; the product w x changes by x when w changes by 1."),
            ((y - t)[0] * x, "what does the bend do to a slope where the neuron is silent?"),
            (np.sign(dz[0]) * x, "and how far is y from t? The slope of the loss along y is y − t."),
        ]
        same_array(found[0], dw[0], where, mistakes)
        given = as_array(found[1], "db")
        if given.size != 1:
            raise NotYet(f"db should be one number, and yours has the shape {list(given.shape)}.")
        same_number(given.reshape(-1)[0], float(db[0]), f"db of a neuron that {name}", hint="z changes by 1 if b does.")
    return "what comes back is (y − t) · [z > 0]; a weight gets it times its input, the bias as it is."


@exercise
def logit_slopes(answer: Any) -> str:
    """A function (z, c) -> the slopes of −log softmax(z)[c] along the logits z."""
    for name, z in (("small logits", random("logits", 5)), ("logits near 800", 800 + random("logits", 5))):
        label = np.array([2])
        _, probs = reference("softmax_cross_entropy", z[None], label)
        truth = reference("softmax_cross_entropy_backward", probs, label)[0]
        mistakes = [
            (-truth, "the sign is turned: p − y, what it said minus what it should have said."),
            (probs[0], "that is p; the true class's z stands in the loss once more, with a minus."),
            (truth * probs[0], "the slope of the softmax is in p − y already."),
        ]
        with np.errstate(all="ignore"):
            found = as_array(call(answer, z, 2), f"with {name}, the result")
        same_array(found, truth, f"with {name}, the result", mistakes)
    return "p − y: the probabilities, and one less at the true class. They add up to zero."


@exercise
def training_steps(answer: Any) -> str:
    """How many steps AlexNet's training took."""
    recipe = load("alexnet-2012")
    of_epoch, epochs = PICTURES // recipe.batch_size, 90
    mistakes = [
        (of_epoch, "that is one epoch."),
        (PICTURES * epochs, "so many pictures it saw; a step takes 128 of them."),
        ((of_epoch + 1) * epochs, "a batch that is not full is left out."),
        (PICTURES / recipe.batch_size * epochs, "a batch that is not full is left out: steps of an epoch are whole."),
        (of_epoch * epochs * recipe.batch_size, "a step takes 128 pictures at once."),
    ]
    same_number(
        answer, of_epoch * epochs, "the number of steps", mistakes, hint="Whole batches an epoch, times epochs."
    )
    return f"{of_epoch:,} steps an epoch, {of_epoch * epochs:,} in all: under a million moves made AlexNet."
