"""The loss, paper section 3.5: the batch mean of −log of the true class's probability."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex_numpy.floats import Floats


def softmax_cross_entropy(logits: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """loss = −(1/N) Σ_n log probs[n, label n]; the largest logit is subtracted first, so that nothing overflows."""
    N, K = logits.shape
    shifted = logits - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=1, keepdims=True)
    valid = (labels >= 0) & (labels < K)
    of_label = np.where(valid, shifted[np.arange(N), np.where(valid, labels, 0)], np.nan)
    loss = np.asarray(np.mean(np.log(total[:, 0]) - of_label), logits.dtype)
    return loss, exponentials / total


def softmax_cross_entropy_backward(probs: Floats, labels: NDArray[np.int64]) -> Floats:
    """dlogits[n,k] = (probs[n,k] − [k = label n]) / N."""
    N, K = probs.shape
    dlogits: Floats = probs / N
    dlogits -= (labels[:, None] == np.arange(K)) / N
    return dlogits
