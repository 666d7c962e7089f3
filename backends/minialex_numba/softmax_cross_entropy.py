"""The cost: one row of logits at a time."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool


@kernel
def forward_kernel(worker, begin, end, logits, l0, ldl, K, labels, losses, probs, p0, ldp):
    """Probabilities, and for each row log Σ exp(logits − largest) − (the label's logit − largest)."""
    for n in range(begin, end):
        a, b = l0 + n * ldl, p0 + n * ldp
        largest = logits[a]
        for k in range(1, K):
            value = logits[a + k]
            if value > largest or value != value:
                largest = value
        total = logits.dtype.type(0)
        for k in range(K):
            power = np.exp(logits[a + k] - largest)
            probs[b + k] = power
            total += power
        for k in range(K):
            probs[b + k] /= total
        label = labels[n]
        of_label = logits[a + label] - largest if 0 <= label < K else logits.dtype.type(np.nan)
        losses[n] = np.log(total) - of_label


@kernel
def backward_kernel(worker, begin, end, probs, p0, ldp, K, labels, N, dlogits, d0, ldd):
    one = probs.dtype.type(1)
    for n in range(begin, end):
        a, b = p0 + n * ldp, d0 + n * ldd
        label = labels[n]
        for k in range(K):
            dlogits[b + k] = probs[a + k] / N
        if 0 <= label < K:
            dlogits[b + label] = probs[a + label] / N - one / N


def softmax_cross_entropy(pool: Pool, logits: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """loss = −(1/N) Σ_n log probs[n, label n]; the largest logit is taken off first, so that nothing overflows."""
    N, K = logits.shape
    losses, probs = np.empty(N, logits.dtype), np.empty_like(logits)
    pool.run(forward_kernel, N, logits.reshape(-1), 0, K, K, labels, losses, probs.reshape(-1), 0, K, grain=8)
    return np.asarray(losses.mean(), logits.dtype), probs


def softmax_cross_entropy_backward(pool: Pool, probs: Floats, labels: NDArray[np.int64]) -> Floats:
    """dlogits[n,k] = (probs[n,k] − [k = label n]) / N."""
    N, K = probs.shape
    dlogits = np.empty_like(probs)
    size = probs.dtype.type(N)
    pool.run(backward_kernel, N, probs.reshape(-1), 0, K, K, labels, size, dlogits.reshape(-1), 0, K, grain=8)
    return dlogits
