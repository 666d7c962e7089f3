"""The update rule, section 5: stochastic gradient descent with momentum and weight decay inside the step."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place

LANES = 1 << 14
"""The most threads of one update; each takes elements at a stride of their number, and counts skipped ones."""

SHARE = 128
"""Counts that one thread adds."""


@function
def updated(w, v, dw, epsilon, momentum, decay):
    """The new w and v of one element, and whether they are finite: a non-finite v makes w non-finite."""
    new_v = momentum * v - decay * epsilon * w - epsilon * dw
    new_w = w + new_v
    rest = new_w - new_w  # 0, or NaN
    return new_w, new_v, rest == rest


@kernel("w", "v", "skipped")
def sgd_update_kernel(i, w, v, dw, skipped, size, lanes, epsilon, momentum, decay):
    """Elements i, i + lanes, …: v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v;  skipped[i] counts those not updated."""
    count = 0
    for e in range(i, size, lanes):
        new_w, new_v, finite = updated(w[e], v[e], dw[e], epsilon, momentum, decay)
        if finite:
            v[e] = new_v
            w[e] = new_w
        else:
            count += 1
    skipped[i] = count


@kernel("sums")
def count_kernel(i, counts, sums, size, share):
    """sums[i] = Σ counts[i·share … i·share + share − 1]."""
    total = 0
    for j in range(i * share, min(size, (i + 1) * share)):
        total += counts[j]
    sums[i] = total


def sgd_update(
    on: Place,
    w: CudaArray,
    v: CudaArray,
    dw: CudaArray,
    *,
    learning_rate: float,
    momentum: float,
    weight_decay: float,
) -> CudaArray:
    """v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v, in place; returns how many non-finite elements were skipped."""
    skipped = on.empty((), np.int64)
    lanes = min(w.size, LANES)
    counts, parts = on.scratch((lanes,), np.int64), on.scratch((-(-lanes // SHARE),), np.int64)
    numbers = (w.dtype.type(value) for value in (learning_rate, momentum, weight_decay))
    on.launch(sgd_update_kernel, lanes, w, v, dw, counts, w.size, lanes, *numbers)
    on.launch(count_kernel, parts.size, counts, parts, lanes, SHARE)
    on.launch(count_kernel, 1, parts, skipped, parts.size, parts.size)
    return skipped
