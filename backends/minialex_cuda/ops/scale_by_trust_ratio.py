"""Layer-wise adaptive rate scaling, LARS (You, Gitman and Ginsburg 2017): sums of squares, the ratio, the result."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place

LANES = 1 << 14
"""The most threads that sum squares; each takes elements at a stride of their number."""

SHARE = 128
"""Partial sums that one thread adds."""


@kernel("sums")
def squares_kernel(i, w, dw, sums, size, lanes):
    """sums[i] = Σ w² of the elements i, i + lanes, …, and sums[lanes + i] = Σ dw²."""
    of_w = w.dtype.type(0)
    of_dw = w.dtype.type(0)
    for e in range(i, size, lanes):
        of_w += w[e] * w[e]
        of_dw += dw[e] * dw[e]
    sums[i] = of_w
    sums[lanes + i] = of_dw


@kernel("sums")
def square_sums_kernel(i, parts, sums, lanes, share, pieces):
    """Sum `share` adjacent numbers in both rows of `parts` [2, lanes]; `sums` is [2, pieces]."""
    row = i // pieces
    first = (i - row * pieces) * share
    total = parts.dtype.type(0)
    for j in range(first, min(lanes, first + share)):
        total += parts[row * lanes + j]
    sums[i] = total


@kernel("ratio")
def trust_ratio_kernel(i, sums, ratio, pieces, coefficient, decay):
    """λ = η·‖w‖ / (‖dw‖ + decay·‖w‖), or 1 if one of the norms is 0."""
    kind = sums.dtype.type
    of_w = kind(0)
    of_dw = kind(0)
    for j in range(pieces):
        of_w += sums[j]
        of_dw += sums[pieces + j]
    w_norm = math.sqrt(of_w)
    dw_norm = math.sqrt(of_dw)
    if w_norm == kind(0) or dw_norm == kind(0):
        ratio[i] = kind(1)
    else:
        ratio[i] = coefficient * w_norm / (dw_norm + decay * w_norm)


@kernel("scaled")
def trust_scaled_kernel(i, w, dw, ratio, scaled, decay):
    scaled[i] = ratio[0] * (dw[i] + decay * w[i])


def scale_by_trust_ratio(
    on: Place, w: CudaArray, dw: CudaArray, *, trust_coefficient: float, weight_decay: float
) -> CudaArray:
    """λ·(dw + decay·w) with λ = η·‖w‖ / (‖dw‖ + decay·‖w‖), or 1 if one of the norms is 0; η is the coefficient."""
    kind = w.dtype
    scaled = on.empty(w.shape, kind)
    lanes = max(1, min(w.size, LANES))
    pieces = -(-lanes // SHARE)
    parts, sums, ratio = (on.scratch(shape, kind) for shape in ((2, lanes), (2, pieces), (1,)))
    on.launch(squares_kernel, lanes, w, dw, parts, w.size, lanes)
    on.launch(square_sums_kernel, 2 * pieces, parts, sums, lanes, SHARE, pieces)
    on.launch(trust_ratio_kernel, 1, sums, ratio, pieces, kind.type(trust_coefficient), kind.type(weight_decay))
    on.launch(trust_scaled_kernel, w.size, w, dw, ratio, scaled, kind.type(weight_decay))
    return scaled
