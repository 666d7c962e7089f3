"""The loss, section 3.5: the batch mean of −log of the true class's probability. N images, K classes."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place

LANES = 32
"""Threads per image: adjacent threads read adjacent logits."""


@kernel("largest")
def lane_largest_kernel(i, logits, largest, K):
    """The largest of one image's logits lane, lane + `LANES`, …; −∞ if there are none; NaN wins."""
    n = i // LANES
    most = -logits.dtype.type(math.inf)
    for k in range(i - n * LANES, K, LANES):
        value = logits[n * K + k]
        if value > most or value != value:
            most = value
    largest[i] = most


@function
def row_largest(lanes, first):
    """The largest logit of an image, from its lanes' largest."""
    most = lanes[first]
    for lane in range(1, LANES):
        value = lanes[first + lane]
        if value > most or value != value:
            most = value
    return most


@kernel("total")
def lane_total_kernel(i, logits, lanes, total, K):
    """Σ exp(logit − the image's largest) over one lane's logits."""
    n = i // LANES
    most = row_largest(lanes, n * LANES)
    added = logits.dtype.type(0)
    for k in range(i - n * LANES, K, LANES):
        added += math.exp(logits[n * K + k] - most)
    total[i] = added


@kernel("largest", "total", "cost")
def row_kernel(i, logits, labels, lanes, totals, largest, total, cost, K):
    """One image's largest logit, Σ exp(logit − largest), and the log of that minus the label's logit."""
    most = row_largest(lanes, i * LANES)
    added = logits.dtype.type(0)
    for lane in range(LANES):
        added += totals[i * LANES + lane]
    largest[i] = most
    total[i] = added
    label = labels[i]
    if 0 <= label < K:
        cost[i] = math.log(added) - (logits[i * K + label] - most)
    else:
        cost[i] = logits.dtype.type(math.nan)


@kernel("probs")
def probs_kernel(i, logits, largest, total, probs, K):
    n = i // K
    probs[i] = math.exp(logits[i] - largest[n]) / total[n]


@kernel("parts")
def cost_kernel(i, cost, parts, N):
    """The sum of every `LANES`th image's loss."""
    added = cost.dtype.type(0)
    for n in range(i, N, LANES):
        added += cost[n]
    parts[i] = added


@kernel("loss")
def mean_kernel(i, parts, loss, N):
    """The mean, from the partial sums added in order: there are few."""
    added = parts.dtype.type(0)
    for lane in range(LANES):
        added += parts[lane]
    loss[i] = added / parts.dtype.type(N)


def softmax_cross_entropy(on: Place, logits: CudaArray, labels: CudaArray) -> tuple[CudaArray, CudaArray]:
    """loss = −(1/N) Σ_n log probs[n, label n]; the largest logit is subtracted first, so that nothing overflows."""
    N, K = logits.shape
    loss, probs = on.empty((), logits.dtype), on.empty((N, K), logits.dtype)
    largest, total, cost = (on.scratch((N,), logits.dtype) for _ in range(3))
    lanes, totals = (on.scratch((N, LANES), logits.dtype) for _ in range(2))
    parts = on.scratch((LANES,), logits.dtype)
    on.launch(lane_largest_kernel, N * LANES, logits, lanes, K)
    on.launch(lane_total_kernel, N * LANES, logits, lanes, totals, K)
    on.launch(row_kernel, N, logits, labels, lanes, totals, largest, total, cost, K)
    on.launch(probs_kernel, N * K, logits, largest, total, probs, K)
    on.launch(cost_kernel, LANES, cost, parts, N)
    on.launch(mean_kernel, 1, parts, loss, N)
    return loss, probs


@kernel("dlogits")
def softmax_cross_entropy_backward_kernel(i, probs, labels, dlogits, N, K):
    kind = probs.dtype.type
    n = i // K
    hit = kind(1) if labels[n] == i - n * K else kind(0)
    dlogits[i] = (probs[i] - hit) / kind(N)


def softmax_cross_entropy_backward(on: Place, probs: CudaArray, labels: CudaArray) -> CudaArray:
    """dlogits[n,k] = (probs[n,k] − [k = label n]) / N."""
    N, K = probs.shape
    dlogits = on.empty((N, K), probs.dtype)
    on.launch(softmax_cross_entropy_backward_kernel, N * K, probs, labels, dlogits, N, K)
    return dlogits
