"""A two-dimensional map of what a layer finds alike: exact t-SNE (van der Maaten and Hinton 2008) in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import ConfigurationError

Float = NDArray[np.floating[Any]]

PERPLEXITY = 30.0  # roughly, the number of neighbours of a point that count
EXAGGERATED = 0.25  # of the steps: early on, attraction is 12 times as strong, so that clusters form
FEWEST, MOST = 10, 5000  # points; memory grows with their number squared


def flat_map(features: Float, *, steps: int = 400, progress: Callable[[int], None] = lambda done: None) -> Float:
    """Positions in the plane such that points that are close in feature space are close.

    In feature space, a Gaussian around each point gives the probability of every other point as its neighbour, with a
    width for some 30 neighbours. In the plane, Student's t gives it. The positions move until both distributions agree,
    starting from the first two principal components. Nothing is random: the same features give the same map.

    Args:
        features: float [N,…]; rows are flattened
        steps: number of gradient descent steps
        progress: called with the number of steps done

    Returns:
        float64 [N,2], centred on 0; only distances are meaningful, and only small ones

    Raises:
        ConfigurationError: For fewer than 10 or more than 5,000 points, non-finite features, or no steps.
    """
    N = len(features)
    if not FEWEST <= N <= MOST:
        raise ConfigurationError(f"a map takes {FEWEST} to {MOST:,} images, got {N:,}")
    if steps < 1:
        raise ConfigurationError(f"a map takes 1 step or more, got {steps}")
    x = np.asarray(features, np.float64).reshape(N, -1)
    if not np.isfinite(x).all():
        raise ConfigurationError("the features are not finite: a map cannot be made of them")
    x = x - x.mean(axis=0)
    near = _neighbours(_squares(x), min(PERPLEXITY, (N - 1) / 3))
    y = principal(x)
    y = 1e-2 * y / (y[:, 0].std() or 1.0)
    speed, gains, rate = np.zeros_like(y), np.ones_like(y), N / 12
    for step in range(steps):
        early = step < EXAGGERATED * steps
        close = 1 / (1 + _squares(y))
        np.fill_diagonal(close, 0)
        pull = ((12 if early else 1) * near - close / close.sum()) * close
        slope = 4 * (pull.sum(axis=1)[:, None] * y - pull @ y)
        gains = np.where(slope * speed < 0, gains + 0.2, np.maximum(gains * 0.8, 0.01))
        speed = (0.5 if early else 0.8) * speed - rate * gains * slope
        y = y + speed
        y -= y.mean(axis=0)
        progress(step + 1)
    return y


def principal(x: Float) -> Float:
    """The first two principal components of centred points [N,D], each with its largest number positive: [N,2]."""
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    y = np.zeros((len(x), 2))
    y[:, : min(2, len(s))] = (u * s)[:, :2]
    return np.asarray(y * np.where(y[np.abs(y).argmax(axis=0), [0, 1]] < 0, -1, 1))


def _squares(x: Float) -> Float:
    """Squared distances between all points [N,D]: [N,N]."""
    norms = (x**2).sum(axis=1)
    return np.asarray(np.maximum(norms[:, None] + norms - 2 * x @ x.T, 0))


def _neighbours(squares: Float, perplexity: float) -> Float:
    """The probabilities of pairs as neighbours, [N,N], with sum 1; widths are found by bisection."""
    N = len(squares)
    squares = squares / (squares.sum() / (N * (N - 1)) or 1.0)
    np.fill_diagonal(squares, np.inf)  # no point is its own neighbour
    farther = squares - squares.min(axis=1, keepdims=True)
    low, high = np.full((N, 1), -20.0), np.full((N, 1), 20.0)  # logarithms of 1 / width²
    for _ in range(50):
        middle = (low + high) / 2
        p = np.exp(-np.exp(middle) * farther)
        p /= p.sum(axis=1, keepdims=True)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1, keepdims=True)
        narrow = entropy < np.log(perplexity)
        low, high = np.where(narrow, low, middle), np.where(narrow, middle, high)
    return np.asarray((p + p.T) / (2 * N))


def same_class(places: Float, labels: NDArray[np.int64], count: int = 5) -> float:
    """The share of points' nearest neighbours that have the point's own class.

    Args:
        places: float [N,…]
        labels: int64 [N]
        count: number of neighbours per point
    """
    squares = _squares(np.asarray(places, np.float64).reshape(len(places), -1))
    np.fill_diagonal(squares, np.inf)
    found = np.argsort(squares, axis=1, kind="stable")[:, :count]
    return float((labels[found] == labels[:, None]).mean())
