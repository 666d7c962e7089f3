"""Local response normalisation, paper section 3.3: neighbouring channels at the same place inhibit each other."""

from __future__ import annotations

import numpy as np

from minialex_numpy.floats import Floats


def window_sum(x: Floats, before: int, after: int) -> Floats:
    """Sum of x over the channels c − before … c + after, clipped to the existing channels; x [N,C,H,W]."""
    padded = np.pad(x, ((0, 0), (before, after), (0, 0), (0, 0)))
    total = np.zeros_like(x)
    for offset in range(before + after + 1):
        total += padded[:, offset : offset + x.shape[1]]
    return total


def local_response_norm(x: Floats, *, size: int, k: float, alpha: float, beta: float) -> tuple[Floats, Floats]:
    """y = x · scale^(−β), scale[c] = k + α · Σ_{c' in the window of c} x[c']²; returns y and scale."""
    before = size // 2
    scale = k + alpha * window_sum(x * x, before, size - 1 - before)
    return x * scale**-beta, scale


def local_response_norm_backward(
    dy: Floats, x: Floats, y: Floats, scale: Floats, *, size: int, alpha: float, beta: float
) -> Floats:
    """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c']."""
    before = size // 2
    inhibition = window_sum(dy * y / scale, size - 1 - before, before)  # the window, seen from its members
    return dy * scale**-beta - 2 * alpha * beta * x * inhibition
