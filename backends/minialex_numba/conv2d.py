"""The convolution and its gradients: see `direct` for the products, `winograd` for the quicker ones of compiled steps."""

from __future__ import annotations

import numpy as np

from minialex.backend.arrays import Padding
from minialex.backend.rules import conv_size
from minialex_numba import direct
from minialex_numba.layout import Floats, channels_first, channels_last, empty
from minialex_numba.pool import Pool
from minialex_numba.products import up


def padded(b: Floats, size: int) -> Floats:
    """The biases, with zeros up to whole tiles."""
    return np.concatenate([b, np.zeros(size - b.size, b.dtype)])


def conv2d(pool: Pool, x: Floats, w: Floats, b: Floats, *, stride: int, padding: Padding) -> Floats:
    """y[n,k,p,q] = b[k] + Σ_{c,r,s} w[k,c,r,s] · patch[n,c,p,q,r,s]."""
    (N, C, H, W), (K, _, R, S) = x.shape, w.shape
    P, Q = conv_size(H, R, stride, padding[0]), conv_size(W, S, stride, padding[1])
    if not x.size or not w.size:
        return np.broadcast_to(b[:, None, None], (N, K, P, Q)).copy()
    engine = direct.Convolution(pool, N, C, H, W, K, R, S, padding[0][0], padding[1][0], P, Q, stride, 1, x.dtype)
    engine.use(empty(engine.weights, x.dtype), empty(engine.work, x.dtype))
    engine.pack([w.reshape(-1)], w.shape, turned=False)
    y = empty(N * P * Q * K, x.dtype)
    engine.run(channels_last(pool, x), 0, C, padded(b, engine.nothing.size), False, y, 0, K)
    return channels_first(pool, y, (N, K, P, Q))


def conv2d_backward(
    pool: Pool, dy: Floats, x: Floats, w: Floats, *, stride: int, padding: Padding, need_dx: bool
) -> tuple[Floats | None, Floats, Floats]:
    """dw = Σ_{n,p,q} dy · patch;  db = Σ_{n,p,q} dy;  dx: the convolution of dy, spread out, by the turned kernels."""
    (N, C, H, W), (K, _, R, S), (P, Q) = x.shape, w.shape, dy.shape[2:]
    dw, db = np.zeros_like(w), np.zeros(K, w.dtype)
    if not x.size or not w.size:
        if dy.size:
            db += dy.sum(axis=(0, 2, 3), dtype=w.dtype)
        return np.zeros_like(x) if need_dx else None, dw, db
    slopes = channels_last(pool, dy)
    gradient = direct.WeightGradient(pool, N, C, H, W, K, R, S, padding[0][0], padding[1][0], P, Q, stride, x.dtype)
    gradient.use(empty(up(gradient.room, 16), x.dtype))
    gradient.run(slopes, 0, K, channels_last(pool, x), 0, C, [dw.reshape(-1)], [db])
    if not need_dx:
        return None, dw, db
    top, left = direct.input_padding(padding, R, S)
    engine = direct.Convolution(pool, N, K, P, Q, C, R, S, top, left, H, W, 1, stride, x.dtype)
    engine.use(empty(engine.weights, x.dtype), empty(engine.work, x.dtype))
    engine.pack([w.reshape(-1)], w.shape, turned=True)
    dx = empty(x.size, x.dtype)
    engine.run(slopes, 0, K, None, False, dx, 0, C)
    return channels_first(pool, dx, x.shape), dw, db
