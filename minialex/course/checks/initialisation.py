"""Checks of notebook 04: initial weights and the plateau."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.course.checks.feedback import call, exercise, random, reference, same_number
from minialex.network import variants
from minialex.network.layers import Conv2d
from minialex.network.network import Network
from minialex.recipe.fields import NetworkFields


@exercise
def guessing_loss(answer: Any) -> str:
    """A function (classes) -> the loss of a network that gives every class the same probability."""
    for classes in (1000, 10, 2):
        truth, _ = reference("softmax_cross_entropy", np.zeros((4, classes)), np.arange(4, dtype=np.int64) % classes)
        mistakes = [
            (-float(truth), "the sign: a loss is minus the logarithm of a probability, and not below zero."),
            (math.log10(classes), "the natural logarithm is meant (np.log)."),
            (math.log2(classes), "the natural logarithm is meant (np.log)."),
            (1 / classes, "that is the probability of the true class; the loss is minus its logarithm."),
            (1 - 1 / classes, "that is the error of guessing; the loss is minus the logarithm of a probability."),
        ]
        same_number(call(answer, classes), float(truth), f"the loss for {classes} classes", mistakes)
    return "ln(1000) = 6.908 and ln(10) = 2.303: know these two when you meet them."


@exercise
def he_std(answer: Any) -> str:
    """A function (channels, size) -> He's standard deviation for a convolution that sees so many channels."""
    fields = NetworkFields(init="he")
    network: Network = variants.build(fields)
    whole = variants.build(replace(fields, init="gaussian"))
    for stage, plain in zip(network.stages(2), whole.stages(2), strict=True):
        layer = stage.layer
        if not isinstance(layer, Conv2d):
            continue
        inputs = stage.seen[0] * layer.size**2
        outputs = layer.kernels * layer.size**2
        before = plain.layer
        assert isinstance(before, Conv2d)
        mistakes = [
            (2 / inputs, "that is the variance; its square root is the standard deviation."),
            (math.sqrt(1 / inputs), "ReLU silences half of the values; the 2 makes up for them."),
            (math.sqrt(2 / stage.seen[0]), "each output adds up channels × size × size products."),
            (math.sqrt(2 / (stage.seen[0] * layer.size)), "kernels have two sides: size × size."),
            (math.sqrt(2 / outputs), "count what comes in, not what goes out."),
            (before.std, "that is the paper's one value for every layer."),
        ]
        same_number(
            call(answer, stage.seen[0], layer.size),
            layer.std,
            f"the deviation for {layer.name} ({stage.seen[0]} channels, kernels of {layer.size} × {layer.size})",
            mistakes,
        )
    return "√(2 / (channels · size²)), as the library has it for all five layers."


@exercise
def dead_share(answer: Any) -> str:
    """A function (activations [N,C,H,W]) -> fraction of channels that are zero for every image and place."""
    y = np.maximum(random("dead", 5, 8, 3, 3), 0)
    y[:, [1, 4, 6]] = 0  # dead
    y[:3, 2] = 0  # silent for some images
    y[:, 5, 0] = 0  # silent at some places
    result = call(answer, y)
    truth = float(np.mean(~(y > 0).any(axis=(0, 2, 3))))
    mistakes = [
        (float(np.mean(y == 0)), "that is the share of zeros; a channel is dead if *all* its values are zero."),
        (3, "that is how many; divide by the number of channels."),
        (1 - truth, "those are the channels that live."),
        (float(np.mean((y == 0).all(axis=(2, 3)))), "a channel that is silent for some images only is not dead."),
        (float(np.mean((y == 0).any(axis=(0, 2, 3)))), "every channel has some zero; all must be zero (np.all)."),
    ]
    same_number(result, truth, "the share of dead channels", mistakes)
    return "three of eight are dead: silent for every image, at every place."
