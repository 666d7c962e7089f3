"""The cost, section 3.5: the mean over the batch of −log of the probability of the true class. N images, K classes."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex_cuda.array import CudaArray
from minialex_cuda.kernel import kernel
from minialex_cuda.place import Place


@kernel("largest", "total", "cost")
def row_kernel(i, logits, labels, largest, total, cost, K):
    """Of one image: its largest logit, Σ exp(logit − largest), and log of that less the label's logit."""
    first = i * K
    most = logits[first]
    for k in range(1, K):
        value = logits[first + k]
        if value > most or value != value:
            most = value
    added = logits.dtype.type(0)
    for k in range(K):
        added += math.exp(logits[first + k] - most)
    largest[i] = most
    total[i] = added
    label = labels[i]
    if 0 <= label < K:
        cost[i] = math.log(added) - (logits[first + label] - most)
    else:
        cost[i] = logits.dtype.type(math.nan)


@kernel("probs")
def probs_kernel(i, logits, largest, total, probs, K):
    n = i // K
    probs[i] = math.exp(logits[i] - largest[n]) / total[n]


@kernel("loss")
def mean_kernel(i, cost, loss, N):
    """The mean, added in order: there are few."""
    added = cost.dtype.type(0)
    for n in range(N):
        added += cost[n]
    loss[i] = added / cost.dtype.type(N)


def softmax_cross_entropy(on: Place, logits: CudaArray, labels: CudaArray) -> tuple[CudaArray, CudaArray]:
    """loss = −(1/N) Σ_n log probs[n, label n]; the largest logit is taken off first, so that nothing overflows."""
    N, K = logits.shape
    loss, probs = on.empty((), logits.dtype), on.empty((N, K), logits.dtype)
    largest, total, cost = (on.scratch((N,), logits.dtype) for _ in range(3))
    on.launch(row_kernel, N, logits, labels, largest, total, cost, K)
    on.launch(probs_kernel, N * K, logits, largest, total, probs, K)
    on.launch(mean_kernel, 1, cost, loss, N)
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
