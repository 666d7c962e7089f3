"""Floors: how long each part of a step takes at least, from its shapes and the machine's measured peak.

A part is a layer in one phase (forward, backward, update, …), all its columns together. Its floor is the larger of two
times, since a processor computes while memory moves:

- its multiply-adds at the rate of the machine's fastest matrix product, counted as the definition has them. A
  convolution by Winograd's method does fewer, and may go below the floor;
- the bytes that must move at the rate at which memory is copied, every array once in each phase: forward reads the
  layer's input and its weights and writes its output; backward reads the gradient of the output, the weights, and the
  input where the gradient depends on it (not for pooling, whose winners take little room), and writes the gradient of
  the input, where somebody needs it; the update reads and writes weights and momentum.

What one part can pass on to the next without a way through memory counts nothing: ReLU, tanh, dropout and scaling
(done while the layer before them writes), the gradients of weights (the update takes them as they come), laying
columns side by side on one device, the normalisation's scale (computed again from the input). So parts that a backend
does in one sweep (normalisation with pooling, say) may go below the sum of their floors, and so may arrays that stay
in a cache. `minialex.speed.plan` counts the same from shapes, without a backend; ``tests/plan/test_floors_agree.py``
holds the two together, layer by layer, and says what little differs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from minialex.backend.program import Call, Program, Value

Key = tuple[str, str]
"""A part of a step: layer and phase, as `minialex.backend.program.Call` names them."""

PRODUCTS = ("conv2d", "linear")


@dataclass(frozen=True)
class Work:
    """What a part has to do: multiply-adds, and bytes to and from memory."""

    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Peaks:
    """What the machine reaches at best, measured (see `minialex.speed.peaks`).

    Attributes:
        multiply_adds: a second, in matrix products
        bytes: a second, read and written, in copies
    """

    multiply_adds: float
    bytes: float

    def floor(self, work: Work) -> float:
        """Seconds that some work takes at least."""
        return max(work.multiply_adds / self.multiply_adds, work.bytes / self.bytes)


def works(program: Program) -> dict[Key, Work]:
    """The work of every part of a recorded step, in the order in which the parts begin.

    An array that several columns read on one device is counted once.
    """
    arithmetic: dict[Key, int] = {}
    moved: dict[Key, dict[Value, int]] = {}
    for call in program.calls:
        key = call.layer, call.phase
        arithmetic[key] = arithmetic.get(key, 0) + multiply_adds(call)
        moved.setdefault(key, {}).update(traffic(call))
    return {key: Work(arithmetic[key], sum(moved[key].values())) for key in arithmetic}


def multiply_adds(call: Call) -> int:
    """Multiplications with addition of one operation; those outside products are not counted."""
    name = call.operation.removesuffix("_backward")
    if name not in PRODUCTS:
        return 0
    backward = name != call.operation
    w: Value = call.args[2 if backward else 1]
    y: Value | None = call.args[0] if backward else call.results[0]
    assert y is not None
    gradients = 1 + (call.results[0] is not None) if backward else 1  # of the weights, and of the input
    return gradients * math.prod(y.shape) * math.prod(w.shape[1:])


def traffic(call: Call) -> Iterator[tuple[Value, int]]:
    """Arrays that one operation must read or write, with the bytes (see the module's docstring)."""
    args, results = call.args, call.results
    once: tuple[Value | None, ...] = ()
    match call.operation:
        case "conv2d" | "linear":
            once = (*args, results[0])
        case "conv2d_backward" | "linear_backward":
            once = (*args[:2], args[2] if results[0] is not None else None, results[0])
        case "max_pool2d" | "local_response_norm" | "spatial_response_norm":
            once = (args[0], results[0])
        case "max_pool2d_backward":
            once = (args[0], results[0])
        case "local_response_norm_backward" | "spatial_response_norm_backward":
            once = (*args[:2], results[0])
        case "softmax_cross_entropy":
            once = (args[0], results[1])
        case "softmax_cross_entropy_backward":
            once = (args[0], results[0])
        case "copy_to":
            once = (args[0], results[0])
        case "augment":
            images, mean = args[:2]
            cut = results[0]
            assert cut is not None
            yield images, math.prod(cut.shape) * images.dtype.itemsize
            once = (mean, cut)
        case "sgd_update":
            yield args[0], 2 * args[0].nbytes
            yield args[1], 2 * args[1].nbytes
    yield from ((value, value.nbytes) for value in once if value is not None)
