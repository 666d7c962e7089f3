"""Steps written by hand: what no network of ours asks of the compiler, but its passes must leave as it is.

Each is recorded, compiled, and compared with the same calls one by one on the reference, in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from minialex.backend.program import ArrayName, Program, Value
from minialex.backend.recorder import Recorder, interpret
from minialex_numba import NumbaBackend
from minialex_numba.compiler import step
from minialex_numpy import NumpyBackend

N, D = 5, 7
CPU = "cpu:0"
PADDED = {"stride": 1, "padding": ((1, 1), (1, 1))}


@dataclass
class Written:
    """A program while it is written: the recorder, and what is bound, fed and returned."""

    on: Any = field(default_factory=lambda: Recorder((CPU,)))
    bound: dict[ArrayName, Value] = field(default_factory=dict)
    fed: dict[ArrayName, Value] = field(default_factory=dict)
    outputs: dict[ArrayName, Value] = field(default_factory=dict)

    def weight(self, *shape: int) -> Value:
        """An array that lives longer than a step."""
        value: Value = self.on.value(shape, "float64", CPU)
        self.bound[ArrayName(f"array{len(self.bound)}")] = value
        return value

    def maps(self) -> Value:
        """Images that the step begins with, [N, 3, 8, 8]."""
        shapes = {"images": ((N, 3, 10, 10), "uint8"), "shift": ((N, 3), "float64"), "top": ((N,), "int32"),
                  "left": ((N,), "int32"), "flip": ((N,), "uint8")}  # fmt: skip
        given = {}
        for role, (shape, dtype) in shapes.items():
            given[role] = self.fed[ArrayName(role=role, device=CPU)] = self.on.value(shape, dtype, CPU)
        mean = self.bound[ArrayName(role="mean", device=CPU)] = self.on.value((3, 10, 10), "float64", CPU)
        images: Value = self.on.augment(
            given["images"], mean, given["shift"], given["top"], given["left"], given["flip"], crop=8, factor=0.01,
            mean_follows=True,
        )  # fmt: skip
        return images

    def give(self, *values: Value) -> None:
        """Return values from the step."""
        for value in values:
            self.outputs[ArrayName(f"result{len(self.outputs)}")] = value


def masked_sum(to: Written) -> None:
    """Two layers read one ReLU: its mask belongs on the sum of both gradients."""
    hidden = to.on.relu(to.on.linear(to.weight(N, D), to.weight(6, D), to.weight(6)))
    slopes = []
    for width in (4, 3):
        weight = to.weight(width, 6)
        y = to.on.linear(hidden, weight, to.weight(width))
        dx, dw, db = to.on.linear_backward(y, hidden, weight, need_dx=True)
        slopes.append(dx)
        to.give(dw, db)
    to.give(to.on.relu_backward(to.on.add(*slopes), hidden))


def read_between(to: Written) -> None:
    """Weights are read between their gradient and their update."""
    x, weight, momentum, bias = to.weight(N, D), to.weight(6, D), to.weight(6, D), to.weight(6)
    y = to.on.linear(x, weight, bias)
    _, dw, _ = to.on.linear_backward(y, x, weight, need_dx=False)
    to.give(to.on.linear(y, to.weight(4, 6), to.weight(4)), to.on.linear(x, weight, to.weight(6)))
    to.on.sgd_update(weight, momentum, dw, learning_rate=0.1, momentum=0.9, weight_decay=0.01)


def others_updated(to: Written) -> None:
    """The gradients of two layers' weights update other weights."""
    x = to.weight(N, D)
    for _ in range(2):
        weight = to.weight(6, D)
        y = to.on.linear(x, weight, to.weight(6))
        _, dw, _ = to.on.linear_backward(y, x, weight, need_dx=False)
        to.on.sgd_update(
            to.weight(6, D), to.weight(6, D), dw, learning_rate=0.1, momentum=0.9, weight_decay=0.01
        )  # fmt: skip


def one_rectified(to: Written) -> None:
    """Of two convolutions of one input one is rectified."""
    x = to.maps()
    one, two = (to.on.conv2d(x, to.weight(4, 3, 3, 3), to.weight(4), **PADDED) for _ in range(2))
    to.give(to.on.relu(one), to.on.tanh(two))


def different_widths(to: Written) -> None:
    """Convolutions of one input have different numbers of kernels, as those of a layer of one's own may."""
    x = to.on.relu(to.on.conv2d(to.maps(), to.weight(4, 3, 3, 3), to.weight(4), **PADDED))
    slopes: list[Value] = []
    updates: list[tuple[Value, Value, Value]] = []
    for K in (3, 9, 2):
        weight, bias = to.weight(K, 4, 3, 3), to.weight(K)
        y = to.on.conv2d(x, weight, bias, **PADDED)
        dx, dw, db = to.on.conv2d_backward(to.on.tanh(y), x, weight, need_dx=True, **PADDED)
        to.give(y)
        updates += [(weight, to.weight(*weight.shape), dw), (bias, to.weight(K), db)]
        slopes.append(dx)
    for update in updates:
        to.on.sgd_update(*update, learning_rate=0.01, momentum=0.9, weight_decay=0.01)
    to.give(to.on.add(to.on.add(*slopes[:2]), slopes[2]))


def kernels_of_two_sizes(to: Written) -> None:
    """Convolutions of one input whose kernels, or whose strides, differ."""
    x = to.maps()
    for size, stride, rows in ((3, 1, 2), (5, 1, 2), (3, 2, 2)):
        padding = ((rows, rows), (rows, rows))
        to.give(to.on.relu(to.on.conv2d(x, to.weight(4, 3, size, size), to.weight(4), stride=stride, padding=padding)))


NORM = {"size": 3, "k": 1.0, "alpha": 0.5, "beta": 0.75}


def read_beside_pooling(to: Written) -> None:
    """Normalised maps are pooled, and read by something else."""
    y, _ = to.on.local_response_norm(to.maps(), **NORM)
    to.give(to.on.max_pool2d(y, size=3, stride=2, ceil=False), to.on.tanh(y))


def returned_beside_pooling(to: Written) -> None:
    """Normalised maps are pooled, and returned."""
    y, _ = to.on.local_response_norm(to.maps(), **NORM)
    to.give(to.on.max_pool2d(y, size=3, stride=2, ceil=False), y)


def another_mask(to: Written) -> None:
    """The gradient of a normalisation goes through a ReLU of other maps than those that were normalised."""
    x = to.maps()
    one, two = (to.on.relu(to.on.conv2d(x, to.weight(4, 3, 3, 3), to.weight(4), **PADDED)) for _ in range(2))
    y, scale = to.on.local_response_norm(one, **NORM)
    numbers = {name: NORM[name] for name in ("size", "alpha", "beta")}
    slope = to.on.local_response_norm_backward(to.on.tanh(two), one, y, scale, **numbers)
    to.give(to.on.relu_backward(slope, two))


def returned_before_relu(to: Written) -> None:
    """What a ReLU reads is returned, too."""
    y = to.on.linear(to.weight(N, D), to.weight(6, D), to.weight(6))
    to.give(y, to.on.relu(y))


def twice_in_one_row(to: Written) -> None:
    """A row of columns has the same maps twice."""
    x = to.maps()
    y, z = (to.on.relu(to.on.conv2d(x, to.weight(4, 3, 3, 3), to.weight(4), **PADDED)) for _ in range(2))
    row = to.on.concat([y, z, y])
    to.give(to.on.conv2d(row, to.weight(2, 12, 3, 3), to.weight(2), **PADDED), row)


@pytest.fixture(scope="module")
def numba_backend() -> NumbaBackend:
    return NumbaBackend(threads=2)


@pytest.mark.parametrize(
    "write",
    [masked_sum, read_between, others_updated, one_rectified, different_widths, kernels_of_two_sizes,
     read_beside_pooling, returned_beside_pooling, another_mask, returned_before_relu, twice_in_one_row],
    ids=lambda write: write.__name__,
)  # fmt: skip
def test_it_does_what_its_calls_do_one_by_one(numba_backend: NumbaBackend, write: Callable[[Written], None]) -> None:
    to = Written()
    write(to)
    program = Program(to.bound, to.fed, (), tuple(to.on.calls), to.outputs)
    random = np.random.default_rng(3)
    arrays = {name: random.standard_normal(value.shape) for name, value in to.bound.items()}
    reference = NumpyBackend()
    ours, theirs = ({name: on.to_device(array.copy(), CPU) for name, array in arrays.items()}
                    for on in (numba_backend, reference))  # fmt: skip
    made = numba_backend.compile_step(program, ours)
    assert isinstance(made, step.Step), "the step was not compiled"
    walk = interpret(program, reference, theirs)
    for _ in range(2):
        low = {"top": 0, "left": 0, "flip": 0, "images": 0}
        high = {"top": 3, "left": 3, "flip": 2, "images": 256}
        feed: dict[ArrayName, Any] = {}
        for name, value in to.fed.items():
            if name.role == "shift":
                array = random.standard_normal(value.shape)
            else:
                array = random.integers(low[name.role], high[name.role], value.shape).astype(value.dtype)
            feed[name] = reference.to_device(array, CPU)
        found, wanted = made(feed), walk(feed)
        for name in wanted:
            np.testing.assert_allclose(found[name].data, wanted[name].data, rtol=1e-10, atol=1e-10, err_msg=str(name))
        for name in theirs:
            np.testing.assert_allclose(ours[name].data, theirs[name].data, rtol=1e-10, atol=1e-10, err_msg=str(name))
