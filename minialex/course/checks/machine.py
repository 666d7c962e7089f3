"""Checks of notebook 15: memory and time, then and now."""

from __future__ import annotations

from typing import Any

from minialex.course.checks.feedback import exercise, same_number
from minialex.engine.summary import summarise
from minialex.network.models import ALEXNET
from minialex.recipe.toml import load
from minialex.speed.plan import IMAGENET, lay_out


@exercise
def bytes_of_learning(answer: Any) -> str:
    """Bytes of the paper's weights, their momentum and their gradients, in float32."""
    summary = summarise(load("alexnet-2012"))
    truth = summary.parameter_bytes
    mistakes = [
        (truth // 3, "those are the weights alone: momentum and gradients are as large."),
        (2 * truth // 3, "one of the three is missing: weights, momentum, gradients."),
        (truth // 4, "those are numbers: each has four bytes."),
        (2 * truth, "a float32 has four bytes, not eight."),
    ]
    hint = "Three numbers for each of 60,965,224 parameters, four bytes each."
    same_number(answer, truth, "the number of bytes", mistakes, hint=hint, tolerance=1e-9)
    return f"{truth:,} bytes, before a single image is in memory."


@exercise
def training_multiply_adds(answer: Any) -> str:
    """Multiply-adds of one epoch of ImageNet: forward, and both gradients of every layer but conv1's input."""
    summary = summarise(load("alexnet-2012"))
    truth = summary.training_multiply_adds * IMAGENET
    first = next(row.multiply_adds for row in summary.rows if row.multiply_adds)
    mistakes = [
        (summary.multiply_adds * IMAGENET, "that is the forward pass alone."),
        (3 * summary.multiply_adds * IMAGENET, "nearly: nobody needs the gradient of the image, so that conv1 has "
         f"two passes, not three ({first:,} multiply-adds fewer an image)."),
        (2 * truth, "those are floating-point operations: a multiply-add is two of them."),
        (truth / IMAGENET, "that is one image's."),
    ]  # fmt: skip
    hint = "Three times the forward pass, less conv1's once; times 1,281,167 images."
    same_number(answer, truth, "the number of multiply-adds", mistakes, hint=hint, tolerance=1e-3)
    return f"{truth:.3g} for one epoch, and the paper made 90."


@exercise
def crossover_batch(answer: Any) -> str:
    """The batch below which two columns send fewer values than two replicas that average their gradients."""
    layout = lay_out(ALEXNET, (0, 1))
    truth = layout.crossover
    mistakes = [
        (2 * truth, "what crosses forward comes back as a gradient: count it twice."),
        (truth / 128, "that is in batches of 128: give images."),
        (layout.exchanged, "that is what one image sends: divide the parameters by it."),
    ]
    hint = "Each replica sends one value a parameter; columns send `lay_out(…).exchanged` values an image."
    same_number(answer, truth, "the batch", mistakes, hint=hint, tolerance=1e-2)
    return f"about {truth:,.0f} images: with the paper's 128, columns send far less."
