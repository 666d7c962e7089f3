"""Normalisation over neighbouring positions of one channel: in the 2012 program's second layer, not in the paper."""

from __future__ import annotations

import numpy as np

from minialex_numpy.floats import Floats


def window_sum(x: Floats, before: int, after: int) -> Floats:
    """Sum of x over the square of rows and columns i − before … i + after, clipped at the edges; x [N,C,H,W]."""
    H, W = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    rows = sum((padded[:, :, r : r + H] for r in range(before + after + 1)), np.zeros_like(padded[:, :, :H]))
    return sum((rows[:, :, :, s : s + W] for s in range(before + after + 1)), np.zeros_like(x))


def spatial_response_norm(x: Floats, *, size: int, k: float, alpha: float, beta: float) -> tuple[Floats, Floats]:
    """y = x · scale^(−β), scale[i,j] = k + α · Σ_{the window of i,j} x²; returns y and scale."""
    before = size // 2
    scale = k + alpha * window_sum(x * x, before, size - 1 - before)
    return x * scale**-beta, scale


def spatial_response_norm_backward(
    dy: Floats, x: Floats, y: Floats, scale: Floats, *, size: int, alpha: float, beta: float
) -> Floats:
    """dx = dy · scale^(−β) − 2αβ · x · Σ_{places whose window holds this one} dy · y / scale."""
    before = size // 2
    inhibition = window_sum(dy * y / scale, size - 1 - before, before)
    return dy * scale**-beta - 2 * alpha * beta * x * inhibition
