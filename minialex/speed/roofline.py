"""The roofline model: the least time of each part of a step, computed from the recorded step.

A part is a layer in one phase (forward, backward, update, …), over all its columns. Its floor is the larger of two
times, since a processor computes while memory is transferred:

- its multiply-adds, counted by the definition, at the rate of the machine's fastest matrix product. A Winograd
  convolution does fewer, and may go below the floor;
- the bytes that must move, at the rate at which memory is copied. `sweeps` says which arrays an operation reads and
  writes, each once: forward reads the layer's input and weights and writes its output; backward reads the output's
  gradient, the weights, and the input if the gradient depends on it, and writes the input's gradient, if it is needed,
  once for all columns on a device that read one array; the update reads and writes weights and momentum.

Anything that one part can pass to the next without going through memory is free: ReLU, tanh, dropout and scaling (done
while the layer before them writes), concatenating columns on one device, the normalisation's scale (recomputed from the
input).

`works` is for processors: both gradients of a product are one sweep, and the update uses the weights' gradient as it is
computed; pooling keeps its winners, which take little memory. `minialex.speed.plan` is for GPUs, whose kernels are
larger: there the two gradients are a sweep each, the weights' gradient is written and read again, pooling finds its
winners again, and consecutive normalisation and pooling are one sweep (see `chains`). So parts that a backend for
processors fuses into one sweep may go below the sum of their floors, and so may arrays that stay in a cache.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from minialex.backend.program import Call, Program, Value, values

Key = tuple[str, str]
"""A part of a step: layer and phase, named as in `minialex.backend.program.Call`."""

CHAINED = ("local_response_norm", "spatial_response_norm", "max_pool2d")


@dataclass(frozen=True)
class Work:
    """The work of a part: multiply-adds, and bytes to and from memory."""

    multiply_adds: int
    bytes: int


@dataclass(frozen=True)
class Peaks:
    """The machine's measured peak rates (see `minialex.speed.peaks`).

    Attributes:
        multiply_adds: multiply-adds per second in matrix products
        bytes: bytes per second, read and written, in copies
    """

    multiply_adds: float
    bytes: float

    def floor(self, work: Work) -> float:
        """The least seconds that some work can take."""
        return max(work.multiply_adds / self.multiply_adds, work.bytes / self.bytes)


@dataclass(frozen=True)
class Sweep:
    """One pass of an operation over memory.

    Attributes:
        phase: the call's phase, or ``"weights"`` for the gradient of a product's weights
        multiply_adds: multiply-adds; those outside products are not counted
        arrays: bytes moved for each image, by array
        weights: bytes of weights and momentum
        gradients: bytes of the weights' gradients
        inputs: bytes of the input in which a GPU's pooling finds its winners again, by array
    """

    phase: str
    multiply_adds: int = 0
    arrays: Mapping[Any, int] = field(default_factory=dict)
    weights: int = 0
    gradients: int = 0
    inputs: Mapping[Any, int] = field(default_factory=dict)


def works(program: Program) -> dict[Key, Work]:
    """The work of every part of a recorded step, in the order in which the parts begin (see the module's docstring)."""
    arithmetic: dict[Key, int] = {}
    arrays: dict[Key, dict[Any, int]] = {}
    weights: dict[Key, int] = {}
    for call in program.calls:
        key = call.layer, call.phase
        for sweep in sweeps(call):
            arithmetic[key] = arithmetic.get(key, 0) + sweep.multiply_adds
            weights[key] = weights.get(key, 0) + sweep.weights
            arrays.setdefault(key, {}).update(sweep.arrays)
    return {key: Work(arithmetic[key], sum(arrays[key].values()) + weights[key]) for key in arithmetic}


def sweeps(call: Call) -> Iterator[Sweep]:
    """An operation as passes over memory: two for the gradients of a product, one for anything else."""
    args, results = call.args, call.results
    match call.operation:
        case "conv2d" | "linear":
            x, w, b = args
            yield Sweep(call.phase, _products(results[0], w), _bytes(x, results[0]), w.nbytes + b.nbytes)
        case "conv2d_backward" | "linear_backward":
            dy, x, w = args
            dx, dw, db = results
            if dx is not None:
                moved = {dy: dy.nbytes, ("gradient", x): dx.nbytes}
                yield Sweep(call.phase, _products(dy, w), moved, w.nbytes)
            yield Sweep("weights", _products(dy, w), _bytes(dy, x), gradients=sum(_bytes(dw, db).values()))
        case "max_pool2d_backward":
            dy, x, _ = args
            yield Sweep(call.phase, 0, _bytes(dy, results[0]), inputs=_bytes(x))
        case "local_response_norm_backward" | "spatial_response_norm_backward":
            yield Sweep(call.phase, 0, _bytes(*args[:2], results[0]))
        case "softmax_cross_entropy":
            yield Sweep(call.phase, 0, _bytes(args[0], results[1]))
        case "softmax_cross_entropy_backward" | "copy_to":
            yield Sweep(call.phase, 0, _bytes(args[0], results[0]))
        case name if name in CHAINED:
            yield Sweep(call.phase, 0, _bytes(args[0], results[0]))
        case "augment":
            images, mean = args[:2]
            (cut,) = results
            assert cut is not None
            yield Sweep(call.phase, 0, {images: math.prod(cut.shape) * images.dtype.itemsize, **_bytes(mean, cut)})
        case "scale_by_trust_ratio":
            w, dw = args
            yield Sweep(call.phase, 0, {}, 2 * w.nbytes, 3 * dw.nbytes)
        case "sgd_update":
            w, v, dw = args
            yield Sweep(call.phase, 0, {}, 2 * (w.nbytes + v.nbytes), dw.nbytes)
        case _:
            yield Sweep(call.phase)


def _products(y: Value | None, w: Value) -> int:
    """Multiply-adds of a product, or of one of its gradients: per output, as many as a kernel has weights."""
    assert y is not None
    return math.prod(y.shape) * math.prod(w.shape[1:])


def _bytes(*arrays: Value | None) -> dict[Any, int]:
    return {array: array.nbytes for array in arrays if array is not None}


def chains(program: Program) -> tuple[dict[str, str], set[Value]]:
    """Consecutive normalisation and pooling, as one sweep each way.

    Returns:
        The name of the chain, ``"norm1 + pool1"``, for every such layer, even a single one; and the arrays between
        layers of a chain, which are never in memory.
    """
    members: dict[str, list[str]] = {}  # of each layer's chain
    makers: dict[Any, str] = {}
    wholes: dict[Any, Value] = {}  # the array that a ReLU's output, or one column's slice, was made from
    between: set[Value] = set()
    for call in program.calls:
        if call.operation.removesuffix("_backward") in CHAINED:
            taken = call.args[0]
            chain = members.setdefault(call.layer, members[makers[taken]] if taken in makers else [])
            if call.layer not in chain:
                chain.append(call.layer)
            while taken in makers:
                between.add(taken)
                taken = wholes.get(taken)
            makers[call.results[0]] = call.layer
        elif call.phase != "exchange" and not any(sweep.arrays for sweep in sweeps(call)):
            for value in values(call.args[0]):
                if value in makers:
                    makers.update(dict.fromkeys(call.results, makers[value]))
                    wholes.update(dict.fromkeys(call.results, value))
    return {layer: " + ".join(chain) for layer, chain in members.items()}, between
