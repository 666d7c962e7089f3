"""The update rule, section 5: stochastic gradient descent with momentum and weight decay inside the step."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place

LANES = 1 << 14
"""Threads of one update at most; each takes every so-manyth element and counts those that are kept."""

SHARE = 128
"""Counts that one thread adds up."""


@function
def updated(w, v, dw, epsilon, momentum, decay):
    """The new w and v of one element, and whether they are finite: a v that is not makes w so."""
    new_v = momentum * v - decay * epsilon * w - epsilon * dw
    new_w = w + new_v
    rest = new_w - new_w  # 0, or not a number
    return new_w, new_v, rest == rest


@kernel("w", "v", "kept")
def sgd_update_kernel(i, w, v, dw, kept, first, size, lanes, rates, rate, momentum, decay):
    """Elements i, i + lanes, …: v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v;  kept[first + i] = how many stay.

    ε is rates[rate]: it lies on the device, since a captured graph cannot change the arguments of a kernel.
    """
    epsilon = rates[rate]
    count = 0
    for e in range(i, size, lanes):
        new_w, new_v, finite = updated(w[e], v[e], dw[e], epsilon, momentum, decay)
        if finite:
            v[e] = new_v
            w[e] = new_w
        else:
            count += 1
    kept[first + i] = count


@kernel("sums")
def count_kernel(i, counts, sums, size, share):
    """sums[i] = Σ counts[i·share … i·share + share − 1]."""
    total = 0
    for j in range(i * share, min(size, (i + 1) * share)):
        total += counts[j]
    sums[i] = total


@kernel("rates")
def rate_kernel(i, rates, value):
    rates[i] = value


def lanes_of(size: int) -> int:
    """How many threads update so many elements."""
    return min(size, LANES)


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
    """v ← momentum·v − decay·ε·w − ε·dw;  w ← w + v, in place; returns how many elements were not finite and kept."""
    rates = on.scratch((1,), w.dtype)
    on.launch(rate_kernel, 1, rates, w.dtype.type(learning_rate))
    return sgd_update_at(on, w, v, dw, rates, 0, momentum=momentum, weight_decay=weight_decay)


def sgd_update_at(
    on: Place,
    w: CudaArray,
    v: CudaArray,
    dw: CudaArray,
    rates: CudaArray,
    rate: int,
    *,
    momentum: float,
    weight_decay: float,
) -> CudaArray:
    """`sgd_update`, with the learning rate on the device: number `rate` of `rates`."""
    kept = on.empty((), np.int64)
    lanes = lanes_of(w.size)
    counts = on.scratch((lanes,), np.int64)
    numbers = (w.dtype.type(value) for value in (momentum, weight_decay))
    on.launch(sgd_update_kernel, lanes, w, v, dw, counts, 0, w.size, lanes, rates, rate, *numbers)
    parts = on.scratch((-(-lanes // SHARE),), np.int64)
    on.launch(count_kernel, parts.size, counts, parts, lanes, SHARE)
    on.launch(count_kernel, 1, parts, kept, parts.size, parts.size)
    return kept
