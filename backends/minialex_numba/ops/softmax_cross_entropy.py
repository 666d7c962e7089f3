"""Softmax and the cross-entropy loss, one row of logits at a time."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Task
from minialex_numba.runtime.jit import kernel


@kernel
def forward_kernel(worker, begin, end, logits, K, labels, losses, probs):
    """Compute probabilities, and each row's loss log Σ exp(logits − largest) − (the label's logit − largest)."""
    (logits, l0, ldl), (probs, p0, ldp) = logits, probs
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
def mean_kernel(worker, begin, end, losses, mean):
    """mean[0] = the mean of the losses, added in double precision; a single item."""
    total = 0.0
    for loss in losses:
        total += loss
    mean[0] = total / losses.size


@kernel
def backward_kernel(worker, begin, end, probs, K, labels, N, dlogits):
    (probs, p0, ldp), (dlogits, d0, ldd) = probs, dlogits
    one = probs.dtype.type(1)
    for n in range(begin, end):
        a, b = p0 + n * ldp, d0 + n * ldd
        label = labels[n]
        for k in range(K):
            dlogits[b + k] = probs[a + k] / N
        if 0 <= label < K:
            dlogits[b + label] = probs[a + label] / N - one / N


def softmax_cross_entropy(on: Buffers, results: Sequence[Value], logits: Value, labels: Value) -> Bind:
    """loss = −(1/N) Σ_n log probs[n, label n]; the largest logit is subtracted first, so that nothing overflows."""
    loss, probs = results
    (N, K), label_name = logits.shape, on.fed_name(labels)

    def bind() -> Task:
        source, target, mean = on.rows(logits), on.rows(probs), on.whole(loss)
        losses = np.empty(N, on.dtype)

        def task(feed: Feed) -> None:
            on.threads.run(forward_kernel, N, source, K, feed[label_name].data, losses, target, grain=8)
            on.threads.run(mean_kernel, 1, losses, mean)

        return task

    return bind


def softmax_cross_entropy_backward(on: Buffers, results: Sequence[Value], probs: Value, labels: Value) -> Bind:
    """dlogits[n,k] = (probs[n,k] − [k = label n]) / N."""
    (N, K), label_name, size = probs.shape, on.fed_name(labels), on.number(probs.shape[0])

    def bind() -> Task:
        source, target = on.rows(probs), on.rows(results[0])
        return lambda feed: on.threads.run(backward_kernel, N, source, K, feed[label_name].data, size, target, grain=8)

    return bind
