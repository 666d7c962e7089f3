"""Exchange of activations between ranks: `minialex.ranks.dividing` on views of the step's memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from minialex.backend.program import Value, flatten
from minialex.ranks import dividing
from minialex_numba.ops.own import view
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task


def _node(compute: Callable[..., Any], on: Buffers, results: Sequence[Value], xs: list[Value], **how: Any) -> Bind:
    """A node that runs alone, since all ranks must reach their exchanges in the same order."""

    def bind() -> Task:
        given = [view(on, value) for value in xs]
        targets = [view(on, value) for value in results]

        def task(feed: Feed) -> None:
            for target, array in zip(targets, flatten(compute(given, **how)), strict=True):
                target[...] = array

        return task

    return bind


gather_over_ranks = partial(_node, dividing.gather)
scatter_over_ranks = partial(_node, dividing.scatter)
swap_over_ranks = partial(_node, dividing.swap)
