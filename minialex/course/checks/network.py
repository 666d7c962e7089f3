"""Checks of notebook 01: an image is an array, and the network layer by layer."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from minialex.course.checks.feedback import NotYet, as_array, call, exercise, same_array, same_number
from minialex.data import load
from minialex.network import models, variants
from minialex.network.layers import Conv2d
from minialex.recipe.fields import NetworkFields


@exercise
def brighter(answer: Any) -> str:
    """A function that makes a uint8 image 60 brighter, and no pixel more than 255."""
    image = load("shapes", train_images=1, validation_images=1).train.read(np.array([0]))[0]
    image[:, :2] = 230  # some that are bright already
    result = call(answer, image)
    array = as_array(result)
    truth = np.minimum(image.astype(int) + 60, 255).astype(np.uint8)
    wrapped = image + np.uint8(60)
    mistakes = [
        (wrapped, "bright pixels have become dark: a uint8 that passes 255 begins again at 0. Add in a wider type "
         "(image.astype(int)), take the minimum with 255, and go back to uint8."),
        (image.astype(int) + 60, "some pixels are above 255: a byte cannot hold them. Take the minimum with 255."),
        (image, "the image is as it was: return the new one."),
    ]  # fmt: skip
    same_array(array, truth, "the brighter image", mistakes, axes=("c", "i", "j"))
    if array.dtype != np.uint8:
        raise NotYet(f"the numbers are right, but their type is {array.dtype}: an image of bytes is np.uint8.")
    return "brighter, and nothing wraps around at 255."


@exercise
def rows_after(answer: Any) -> str:
    """A function (rows, kernel, stride, padding) -> rows of output, for padding above and below together."""
    for rows, kernel, stride, padding in ((27, 5, 1, 4), (227, 11, 4, 0), (224, 11, 4, 3), (224, 11, 4, 0)):
        layer = Conv2d("conv", 1, kernel, stride, ((0, padding), (0, padding)))
        truth = layer.output_shape((1, rows, rows), 1)[1]
        result = call(answer, rows, kernel, stride, padding)
        given = f"rows_after({rows}, {kernel}, {stride}, {padding})"
        exact = (rows + padding - kernel) / stride + 1
        mistakes = [
            (exact, "places are counted whole: a kernel that would hang over the edge has no place (use //)."),
            (math.ceil(exact), "rounding up counts a last place at which the kernel hangs over the edge."),
            (truth - 1, "one too few: n steps between places make n + 1 places."),
            (math.floor((rows + 2 * padding - kernel) / stride) + 1,
             "here padding is what is added above and below together: add it once."),
            (math.floor((rows - kernel) / stride) + 1, "the padding is missing."),
        ]  # fmt: skip
        same_number(result, truth, given, mistakes)
    return "with 224 rows and no padding it gives 54: that is why the paper's 55 needs 227, or three rows of zeros."


@exercise
def one_column_parameters(answer: Any) -> str:
    """Parameters of the paper's network if every layer saw everything (one column, the same kernels)."""
    fields = NetworkFields()

    def count(columns: int) -> int:
        network = variants.build(replace(fields, columns=columns))
        return sum(math.prod(p.shape) for p in network.parameters(columns).values())

    two, one = count(2), count(1)
    weights = sum(math.prod(p.shape) for name, p in models.ALEXNET.parameters(1).items() if name.array == "weight")
    mistakes = [
        (two, "that is the network in two columns. In one column a kernel of conv2, conv4 or conv5 sees twice as "
         "many channels."),
        (weights, "those are the weights; every kernel and every neuron has a bias too."),
        (2 * two, "conv1, conv3 and the full layers do not change: they see everything already."),
    ]  # fmt: skip
    hint = "Only conv2, conv4 and conv5 change: their kernels see 96, 384 and 384 channels instead of half of them."
    same_number(answer, one, "the number of parameters", mistakes, hint=hint, tolerance=1e-12)
    return f"{one:,}: {one - two:,} more, all of them in conv2, conv4 and conv5."
