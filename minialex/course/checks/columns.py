"""Checks of notebook 11: two columns on two devices."""

from __future__ import annotations

from typing import Any

import numpy as np

from minialex.course.checks.feedback import NotYet, call, exercise, same_array, same_number
from minialex.network import models


@exercise
def conv3_bytes(answer: Any) -> str:
    """Bytes that go each way before conv3 in a forward pass of 128 images, in float32."""
    both = models.ALEXNET.exchanged_bytes(2, 128)["conv3"]
    one_way = both // 2
    stage = next(stage for stage in models.ALEXNET.stages(2) if stage.layer.name == "conv3")
    whole = int(np.prod(stage.seen)) * 128 * 4
    mistakes = [
        (one_way // 4, "those are values: each float32 has four bytes."),
        (one_way // 128, "that is one image's; a batch has 128."),
        (whole * 2, "each column has half of the channels already: only the other half crosses."),
        (one_way * 27 * 27 / 13 / 13, "what crosses is the output of pool2: 13 rows, not 27."),
    ]
    hint = "pool2 gives 128 channels a column, 13 × 13 places, for each of 128 images."
    same_number(answer, one_way, "the number of bytes", mistakes, hint=hint, tolerance=1e-12)
    return f"{one_way:,} bytes each way; their gradient comes back in the backward pass."


@exercise
def owners_gradient(answer: Any) -> str:
    """A function: the two readers' gradients, each [N,2C,H,W] -> the two owners' gradients, each [N,C,H,W]."""
    random = np.random.default_rng(11)
    readers = [random.normal(0, 1, (2, 6, 2, 2)) for _ in range(2)]
    truth = [readers[0][:, :3] + readers[1][:, :3], readers[0][:, 3:] + readers[1][:, 3:]]
    result = call(lambda a, b: answer([a, b]), *readers)
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise NotYet("return two arrays, one an owner.")
    for owner in (0, 1):
        own = slice(3 * owner, 3 * owner + 3)
        mistakes = [
            (readers[owner][:, own], "that is what the column itself has read: the other's part is missing."),
            (readers[1 - owner][:, own], "that is the other reader's part alone: add the column's own."),
            (truth[owner] / 2, "gradients of two readers add up; they are not averaged."),
            (truth[1 - owner], "the owners are swapped: column 0 has the first half of the channels."),
        ]
        same_array(result[owner], truth[owner], f"the gradient of column {owner}", mistakes, axes=("n", "c", "i", "j"))
    return "each owner has the sum of what both readers want."


@exercise
def column_parameters(answer: Any) -> str:
    """Parameters (weights and biases) of conv4 in two columns."""
    network = models.ALEXNET

    def count(columns: int) -> int:
        pieces = network.parameters(columns).items()
        return sum(int(np.prod(p.shape)) for name, p in pieces if name.layer == "conv4")

    two, one = count(2), count(1)
    mistakes = [
        (one, "that is conv4 in one column: here a kernel sees only the 192 channels of its own column."),
        (two - 384, "the biases are missing, one per kernel."),
        (two // 2, "that is one column's half."),
    ]
    hint = "384 kernels of 3 × 3 over the 192 channels of their own column, and a bias each."
    same_number(answer, two, "the number of parameters", mistakes, hint=hint, tolerance=1e-12)
    return f"{two:,}, where one column would need {one:,}."
