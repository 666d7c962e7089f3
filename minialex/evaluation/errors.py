"""Validation: top-1 and top-5 errors of one network, or of several whose probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data import Split
from minialex.engine.session import Session
from minialex.errors import DataError
from minialex.ranks.group import ALONE, Group
from minialex.screen.formats import plural


@dataclass(frozen=True)
class Evaluation:
    """Probabilities on a whole split, and the measures computed from them.

    Attributes:
        probs: float32 [N,K]
        labels: int64 [N]
    """

    probs: NDArray[np.floating[Any]]
    labels: NDArray[np.int64]

    @property
    def own(self) -> NDArray[np.floating[Any]]:
        """Probability of each image's label, [N]."""
        return np.asarray(self.probs[np.arange(len(self.labels)), self.labels])

    def right(self, top: int) -> NDArray[np.bool_]:
        """[N]: whether the label is among the `top` most probable classes; ties count as wrong."""
        ahead = (self.probs >= self.own[:, None]).sum(axis=1) - 1
        return np.asarray((ahead < top) & np.isfinite(self.own))

    def error(self, top: int) -> float:
        """Fraction of images whose label is not among the `top` most probable classes."""
        return float(np.mean(~self.right(top)))

    @property
    def loss(self) -> float:
        """Mean cross-entropy of the (averaged) probabilities."""
        tiny = np.finfo(self.own.dtype).tiny
        return float(-np.log(np.maximum(self.own, tiny)).mean(dtype=np.float64))

    @property
    def confusion(self) -> NDArray[np.int64]:
        """[K,K]: how many images of each true class (row) were predicted as each class (column)."""
        K = self.probs.shape[1]
        counts = np.bincount(self.labels * K + self.probs.argmax(axis=1), minlength=K * K)
        return counts.reshape(K, K).astype(np.int64)

    def interval(self, top: int) -> tuple[float, float]:
        """The error's 95% interval, from the number of images only; see `wilson`."""
        return wilson(self.error(top), len(self.labels))

    def words(self, top: int) -> str:
        """The error with its interval: ``"40.66% (95%: 40.23 to 41.09%)"``."""
        low, high = self.interval(top)
        return f"{self.error(top):.2%} (95%: {100 * low:.2f} to {high:.2%})"

    def __repr__(self) -> str:
        return (
            f"<{plural(len(self.labels), 'image')}: top-1 error {self.words(1)}, top-5 error {self.error(5):.2%}, loss "
            f"{self.loss:.4f}>"
        )


def wilson(error: float, images: int) -> tuple[float, float]:
    """95% interval of an error measured on `images` images (Wilson 1927: valid at 0, at 1 and for few images)."""
    z = 1.96
    middle = (error + z * z / (2 * images)) / (1 + z * z / images)
    half = z / (1 + z * z / images) * math.sqrt(error * (1 - error) / images + z * z / (4 * images * images))
    return max(0.0, middle - half), min(1.0, middle + half)


def evaluate(
    sessions: Sequence[Session],
    split: Split,
    *,
    views: int = 1,
    batch_size: int = 100,
    progress: Callable[[int], None] = lambda done: None,
    stop: Callable[[], bool] = lambda: False,
    group: Group = ALONE,
) -> Evaluation:
    """Evaluate one session, or the average of several, on a split.

    Args:
        sessions: sessions with equal numbers of classes
        views: 1, the centre, or 10, the corners and the centre with their reflections (section 4.1)
        batch_size: number of images at a time
        progress: called with the number of images done
        stop: polled after each batch; if it returns true, the result so far is returned
        group: the ranks that share the batches, which are the same as for a single rank; all return the same bits, and
            poll `stop` equally often
    """
    if len(split) == 0:
        raise DataError("the validation set is empty: give more images, or another --data")
    labels = np.asarray(split.labels, np.int64)
    probs: NDArray[np.float32] | None = None
    done = 0
    for begin in range(0, len(split), group.size * batch_size):
        done = min(begin + group.size * batch_size, len(split))
        indices = np.arange(
            min(begin + group.rank * batch_size, done), min(begin + (group.rank + 1) * batch_size, done)
        )
        if len(indices):
            images = split.read(indices)
            found = [s.probabilities(images, labels[indices], views)[0] for s in sessions]
            mean = np.mean(found, axis=0)
            probs = np.zeros((len(split), mean.shape[1]), np.float32) if probs is None else probs
            probs[indices] = mean
        progress(done)
        if stop():
            break
    classes = max(group.exchange(0 if probs is None else probs.shape[1]))  # with few images some ranks have none
    probs = np.zeros((len(split), classes), np.float32) if probs is None else probs
    group.sum([probs], [probs])  # each row is one rank's, and 0 on the others
    return Evaluation(probs[:done], labels[:done])
