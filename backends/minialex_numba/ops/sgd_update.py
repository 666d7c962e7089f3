"""The update rule in one pass over weight, momentum and gradient."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Task, Whole, in_order
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.vector import count_finite, lanes, load, multiply_add, spread, store, where_finite

PIECE = 1 << 15
"""Elements per item."""


class Rates(NamedTuple):
    """The numbers in the update rule; in a program they may be symbols. Kernels read them from an array."""

    learning_rate: Any
    momentum: Any
    weight_decay: Any


@part
def update(w, v, i, dw, j, count, rates):
    """Update v and w of `count` elements from i; return how many were skipped since they would not be finite."""
    rate, momentum, decay = rates[0], rates[1], rates[2]
    times, step, pull = spread(w, momentum), spread(w, -rate), spread(w, -(decay * rate))
    skipped = 0
    for c in range(0, count, lanes(w)):
        old_w, old_v = load(w, i + c, count - c), load(v, i + c, count - c)
        new_v = multiply_add(times, old_v, multiply_add(pull, old_w, step * load(dw, j + c, count - c)))
        new_w = old_w + new_v
        store(v, i + c, where_finite(new_w, new_v, old_v), count - c)
        store(w, i + c, where_finite(new_w, new_w, old_w), count - c)
        skipped += min(lanes(w), count - c) - count_finite(new_w, count - c)
    return skipped


@kernel
def update_kernel(worker, begin, end, w, v, dw, rates, skipped):
    for item in range(begin, end):
        first = item * PIECE
        skipped[item] = update(w, v, first, dw, first, min(PIECE, w.size - first), rates)


@kernel
def total_kernel(worker, begin, end, counts, total):
    """total[0] = Σ counts; a single item."""
    found = 0
    for count in counts:
        found += count
    total[0] = found


def sgd_update(
    on: Buffers, results: Sequence[Value], w: Value, v: Value, dw: Value, *, learning_rate: Any, momentum: Any,
    weight_decay: Any,
) -> Bind:  # fmt: skip
    """v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v, in place; the result counts the skipped, non-finite elements."""

    rates = on.numbers(Rates(learning_rate, momentum, weight_decay))
    counts = np.zeros(-(-math.prod(w.shape) // PIECE), np.int64)

    def bind() -> Task:
        weights = on.array(w).data.reshape(-1), on.array(v).data.reshape(-1)
        return in_order(
            on.launch(update_kernel, counts.size, *weights, Whole(dw), rates, counts)(),
            on.launch(total_kernel, 1, counts, Whole(results[0]))(),
        )

    return bind
