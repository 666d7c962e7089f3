"""Sums of gradients over the ranks that share a batch: the group's own, on the step's memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Task


def sum_over_ranks(on: Buffers, results: Sequence[Value], xs: list[Value], *, group: Any) -> Bind:
    """See `minialex.ranks.group.Group.sum`: all ranks come to it in one order, so it has no other task beside it."""

    def bind() -> Task:
        arrays, sums = ([on.whole(value)[: math.prod(value.shape)] for value in values] for values in (xs, results))
        return lambda feed: group.sum(arrays, sums)

    return bind
