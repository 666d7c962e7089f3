"""Colour in the first layer's kernels, and whether columns differ in it: figure 3 of the paper, in numbers.

The paper: the kernels on one GPU are largely colour-agnostic, those on the other largely colour-specific, in every
run. This module measures how much of a kernel is colour, and tests whether columns differ more than by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.errors import ConfigurationError

Float = NDArray[np.floating[Any]]

PERMUTATIONS = 9999
_BLOCK = 1000  # permutations drawn at a time


def colour_energies(kernels: Float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum of squared weights of each kernel, and the part of it that is colour.

    A kernel w [3,R,S] is the sum of a grey kernel (the mean over red, green and blue at each position) and a remainder
    that is orthogonal to it: ‖w‖² = 3‖grey‖² + ‖rest‖².

    Args:
        kernels: float [K,3,R,S]

    Returns:
        float64 [K] and [K]

    Raises:
        ConfigurationError: If the kernels do not read three channels.
    """
    if kernels.ndim != 4 or kernels.shape[1] != 3:
        raise ConfigurationError(f"colour needs kernels of three channels [K,3,R,S], got {kernels.shape}")
    kernels = kernels.astype(np.float64)
    rest = kernels - kernels.mean(axis=1, keepdims=True)
    return (kernels**2).sum(axis=(1, 2, 3)), (rest**2).sum(axis=(1, 2, 3))


def colour_selectivity(kernels: Float) -> NDArray[np.float64]:
    """The fraction of each kernel's squared weights that is colour, float64 [K].

    0 means that grey images excite the kernel as much as coloured ones, 1 that it responds only to differences of
    colour; independent random weights have 2/3 on average. A kernel of zeros has NaN.
    """
    whole, colour = colour_energies(kernels)
    with np.errstate(invalid="ignore"):
        return np.where(whole > 0, colour / np.where(whole > 0, whole, 1), np.nan)


def colour_share(kernels: Float) -> float:
    """The share of all kernels' squared weights that is colour; NaN if all are zero."""
    whole, colour = (float(energy.sum()) for energy in colour_energies(kernels))
    return colour / whole if whole > 0 and np.isfinite(whole) else float("nan")


@dataclass(frozen=True)
class Difference:
    """Whether columns differ, by a permutation test.

    Attributes:
        means: mean score of each column
        statistic: variance between the columns as a share of all variance, η² in 0 … 1
        p_value: share of random divisions of the kernels into columns whose statistic is at least as large, counting
            the actual division as one of them
        permutations: number of random divisions drawn
    """

    means: tuple[float, ...]
    statistic: float
    p_value: float
    permutations: int


def column_difference(
    scores: NDArray[np.float64], columns: int, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Difference:
    """Test whether the columns' mean scores differ more than those of random divisions of the same kernels.

    Args:
        scores: float64 [K], the kernels of column 0 first; those that are NaN are left out
        columns: number of columns, at least 2; each has K / columns kernels
        permutations: random divisions to draw; the smallest possible p-value is 1 / (permutations + 1)
        seed: seed of the divisions

    Raises:
        ConfigurationError: If there are fewer than two columns, or the scores cannot be divided among them.
    """
    if columns < 2 or len(scores) % columns or not len(scores):
        raise ConfigurationError(f"{len(scores)} kernels in {columns} columns cannot be compared by column")
    column = np.repeat(np.arange(columns), len(scores) // columns)
    known = np.isfinite(scores)
    scores, column = scores[known], column[known]
    counts = np.bincount(column, minlength=columns)
    if not counts.all():
        raise ConfigurationError("a column has no kernel with a finite score: there is nothing to compare")
    centred = scores - scores.mean()
    total = float((centred**2).sum())
    members = np.equal.outer(np.arange(columns), column).astype(np.float64)  # [columns, K]

    def between(orders: NDArray[np.int64]) -> NDArray[np.float64]:
        """The statistic of the scores in some orders [B,K], before division by the total."""
        sums = centred[orders] @ members.T
        return np.asarray((sums**2 / counts).sum(axis=1))

    observed = float(between(np.arange(len(scores))[None])[0])
    as_large = 1
    stream = philox.Stream(seed, philox.purpose("look/kernels"))
    for begin in range(0, permutations, _BLOCK):
        samples = np.arange(begin, min(begin + _BLOCK, permutations), dtype=np.int64)
        words = philox.words(stream, samples, 2 * len(scores))
        orders = np.argsort(np.ascontiguousarray(words).view(np.uint64), axis=1, kind="stable")
        as_large += int((between(orders) >= observed * (1 - 1e-12)).sum())  # as large, up to rounding
    means = tuple(float(scores[column == c].mean()) for c in range(columns))
    statistic = observed / total if total > 0 else 0.0
    return Difference(means, statistic, as_large / (permutations + 1), permutations)
