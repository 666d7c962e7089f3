"""Max pooling, paper section 3.4: windows of size z at stride s; with s < z they overlap, as the paper's do (z=3, s=2).

Letters: N images, C channels, H W input size, P Q output size; a window's rows and columns count from 0 to size − 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minialex.backend.rules import pool_size
from minialex_numpy.floats import Floats


def corners(padded: Floats, P: int, Q: int, size: int, stride: int) -> Iterator[Floats]:
    """For each position inside the window, in row order, yield the view [N,C,P,Q] of all windows' values there."""
    for r in range(size):
        for s in range(size):
            yield padded[:, :, r : r + stride * P : stride, s : s + stride * Q : stride]


def extend(x: Floats, P: int, Q: int, size: int, stride: int, value: float) -> Floats:
    """Pad x with `value` below and to the right, for windows that extend past the edge."""
    below = max(0, (P - 1) * stride + size - x.shape[2])
    right = max(0, (Q - 1) * stride + size - x.shape[3])
    return np.pad(x, ((0, 0), (0, 0), (0, below), (0, right)), constant_values=value)


def max_pool2d(x: Floats, *, size: int, stride: int, ceil: bool) -> Floats:
    """y[n,c,p,q] = the largest x in the window that begins at (p·stride, q·stride)."""
    P, Q = (pool_size(n, size, stride, ceil) for n in x.shape[2:])
    y = np.full((*x.shape[:2], P, Q), -np.inf, x.dtype)
    for corner in corners(extend(x, P, Q, size, stride, -np.inf), P, Q, size, stride):
        np.maximum(y, corner, out=y)
    return y


def max_pool2d_backward(dy: Floats, x: Floats, y: Floats, *, size: int, stride: int, ceil: bool, ties: str) -> Floats:
    """Each window passes its dy to its maximum: the first in row order or, with ties = "all", every one."""
    del ceil  # the size of y shows it
    P, Q = y.shape[2:]
    padded = extend(x, P, Q, size, stride, -np.inf)
    dx = np.zeros_like(padded)
    free = np.ones(y.shape, bool)  # windows whose maximum has not been found yet
    for corner, into in zip(corners(padded, P, Q, size, stride), corners(dx, P, Q, size, stride), strict=True):
        hit = free & (corner == y)
        np.add(into, dy, out=into, where=hit)
        if ties == "first":
            free &= ~hit
    return dx[:, :, : x.shape[2], : x.shape[3]]
