"""Convolution, paper section 3.5: every output is one inner product of a kernel and a patch of the image.

The patches are a strided view of the padded image; one matrix product computes all inner products at once.
Letters: N images, C channels, H W input size, K kernels, R S kernel size, P Q output size.
"""

from __future__ import annotations

import numpy as np

from minialex.backend.arrays import Padding
from minialex_numpy.floats import Floats


def patches(x: Floats, kernel: tuple[int, int], stride: int, padding: Padding) -> Floats:
    """A view [N,C,P,Q,R,S] of x [N,C,H,W]: the patch under the kernel at each of the P × Q places."""
    padded = np.pad(x, ((0, 0), (0, 0), *padding))
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::stride, ::stride]


def conv2d(x: Floats, w: Floats, b: Floats, *, stride: int, padding: Padding) -> Floats:
    """y[n,k,p,q] = b[k] + Σ_{c,r,s} w[k,c,r,s] · patch[n,c,p,q,r,s]."""
    columns = patches(x, w.shape[2:], stride, padding)
    y = np.tensordot(w, columns, axes=((1, 2, 3), (1, 4, 5)))  # [K,N,P,Q]
    return y.swapaxes(0, 1) + b[:, None, None]


def conv2d_backward(
    dy: Floats, x: Floats, w: Floats, *, stride: int, padding: Padding, need_dx: bool
) -> tuple[Floats | None, Floats, Floats]:
    """dw = Σ_{n,p,q} dy · patch;  db = Σ_{n,p,q} dy;  dx: at every position the kernel adds w · dy to its patch."""
    columns = patches(x, w.shape[2:], stride, padding)
    dw = np.tensordot(columns, dy, axes=((0, 2, 3), (0, 2, 3))).transpose(3, 0, 1, 2)  # [K,C,R,S]
    db = dy.sum(axis=(0, 2, 3))
    if not need_dx:
        return None, dw, db

    N, C, H, W = x.shape
    P, Q = dy.shape[2:]
    (above, below), (left, right) = padding
    back = np.tensordot(w, dy, axes=(0, 1))  # [C,R,S,N,P,Q]
    dx = np.zeros((C, N, H + above + below, W + left + right), x.dtype)
    for r in range(w.shape[2]):
        for s in range(w.shape[3]):
            dx[:, :, r : r + stride * P : stride, s : s + stride * Q : stride] += back[:, r, s]
    return dx[:, :, above : above + H, left : left + W].swapaxes(0, 1), dw, db
