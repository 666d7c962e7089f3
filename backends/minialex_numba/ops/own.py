"""A user-defined operation in a compiled step: NumPy on views of the step's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.operations import FUNCTIONS
from minialex.backend.program import Value, flatten
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task, current, row_width


def own(operation: str) -> Any:
    """The node function of a registered operation."""
    return partial(_node, operation)


def _node(operation: str, on: Buffers, results: Sequence[Value | None], *arguments: Value, **numbers: Any) -> Bind:
    function = FUNCTIONS[operation]

    def bind() -> Task:
        given = [view(on, value, like=value) for value in arguments]
        for array in given:
            array.flags.writeable = False
        # a gradient has the layout of what it belongs to: a parameter's is the protocol's
        likes = [*arguments[1:], *results] if operation.endswith("_backward") else results
        targets = [view(on, value, like) for value, like in zip(results, likes, strict=False) if value]

        def task(feed: Feed) -> None:
            with np.errstate(all="ignore"):  # this may run on another thread
                made = function.compute(np, "numba", *given, **{key: current(n, feed) for key, n in numbers.items()})
            for target, array in zip(targets, flatten(made), strict=True):
                target[...] = array

        return task

    return bind


def view(on: Buffers, value: Value, like: Value | None = None) -> NDArray[Any]:
    """A view of a value's memory in the protocol's shape: rows of channels, seen as N C H W."""
    if value in on.slices.bound:
        found: NDArray[Any] = on.array(value).data.view()
        return found
    given = like is not None and (like in on.slices.bound or like in on.slices.plain)
    if len(value.shape) < 2 or given or value in on.slices.plain:
        return on.whole(value)[: math.prod(value.shape)].reshape(value.shape)
    N, C, *places = value.shape
    data, first, distance = on.rows(value)
    rows = data[: N * math.prod(places) * distance].reshape(N, math.prod(places), distance)
    return np.moveaxis(rows[:, :, first : first + row_width(value)].reshape(N, *places, C), -1, 1)
