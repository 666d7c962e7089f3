"""All-reduces of gradients over the ranks that share a batch: the group's own, in place, overlapping the step's work.

`minialex_numba.compiler.graph` splits each into two tasks: the first begins, the second waits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task


def sum_over_ranks(
    on: Buffers, results: Sequence[Value], xs: list[Value], *, group: Any, how: str, begun: list[Any]
) -> Bind:
    """Begin the sums of `xs` (`minialex.ranks.group.Group.begin_sum`), which replace them in place."""

    def bind() -> Task:
        arrays = [on.whole(value)[: math.prod(value.shape)] for value in xs]

        def task(feed: Feed) -> None:
            begun[:] = [group.begin_sum(arrays, arrays, how)]  # one that a Ctrl-C left behind is dropped

        return task

    return bind


def await_sums(on: Buffers, results: Sequence[Value], xs: list[Value], *, begun: list[Any]) -> Bind:
    """Wait for the sums to end."""
    return lambda: lambda feed: begun.pop()()
