"""Operations that do the work of several, where nobody else needs what is between them; `fusion` finds where.

The normalised maps and their scales, the largest arrays of AlexNet, are then never in memory: the way back computes
them again, from the ReLU's output and one byte a window that says where its maximum was.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from minialex.backend.rules import pool_size
from minialex_cuda.ops.conv2d import conv2d, conv2d_backward, conv2d_dw, conv2d_dx
from minialex_cuda.ops.linear import linear, linear_dw, linear_dx
from minialex_cuda.ops.max_pool2d import first_window, max_pool2d_backward
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place


@function
def scale_at(x, j, c, C, places, before, after, k, alpha):
    """The scale of local response normalisation at element j, which is of channel c."""
    total = x.dtype.type(0)
    for other in range(max(0, c - before), min(C, c + after + 1)):
        value = x[j + (other - c) * places]
        total += value * value
    return k + alpha * total


@kernel("y", "where")
def norm_pool_kernel(i, x, y, where, C, H, W, P, Q, size, stride, before, after, k, alpha, beta):
    """y = the largest normalised x of a window, where = its place within the window, in row order."""
    q = i % Q
    rest = i // Q
    p = rest % P
    plane = rest // P
    c = plane % C
    best = -x.dtype.type(math.inf)
    place = 0
    for h in range(p * stride, min(p * stride + size, H)):
        for w in range(q * stride, min(q * stride + size, W)):
            j = (plane * H + h) * W + w
            value = x[j] * scale_at(x, j, c, C, H * W, before, after, k, alpha) ** -beta
            if value > best or value != value:
                best = value
                place = (h - p * stride) * size + w - q * stride
    y[i] = best
    where[i] = place


def norm_pool(
    on: Place, x: CudaArray, *, window: int, k: float, alpha: float, beta: float, size: int, stride: int, ceil: bool
) -> tuple[CudaArray, CudaArray]:
    """max_pool2d(local_response_norm(x)), and where in each window its maximum was, uint8 of that shape."""
    N, C, H, W = x.shape
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y, where = on.empty((N, C, P, Q), x.dtype), on.empty((N, C, P, Q), np.uint8)
    before = window // 2
    numbers = (x.dtype.type(value) for value in (k, alpha, beta))
    on.launch(norm_pool_kernel, y.size, x, y, where, C, H, W, P, Q, size, stride, before, window - 1 - before, *numbers)
    return y, where


@kernel("dx")
def norm_pool_backward_kernel(
    i, dy, x, where, dx, C, H, W, P, Q, size, stride, before, after, k, alpha, beta, rectify
):  # fmt: skip
    """dx of pooling, then of normalisation, then of the ReLU that made x; scales and maxima are computed again.

    d[c'] = Σ dy over the windows whose maximum is here in channel c';
    dx = d[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} d[c'] · x[c'] · scale[c']^(−β) / scale[c'].
    """
    zero = x.dtype.type(0)
    places = H * W
    w = i % W
    rest = i // W
    h = rest % H
    plane = rest // H
    c = plane % C
    own = zero
    total = zero
    for other in range(max(0, c - after), min(C, c + before + 1)):
        d = zero
        for p in range(first_window(h, size, stride), min(P, h // stride + 1)):
            for q in range(first_window(w, size, stride), min(Q, w // stride + 1)):
                at = ((plane + other - c) * P + p) * Q + q
                if where[at] == (h - p * stride) * size + w - q * stride:
                    d += dy[at]
        if d != zero:  # most places are no window's maximum
            j = i + (other - c) * places
            scale = scale_at(x, j, other, C, places, before, after, k, alpha)
            power = scale**-beta
            total += d * (x[j] * power) / scale
            if other == c:
                own = d * power
    found = own - x.dtype.type(2) * alpha * beta * x[i] * total
    dx[i] = zero if rectify and not x[i] > zero else found


def norm_pool_backward(
    on: Place, dy: CudaArray, x: CudaArray, where: CudaArray, *,
    window: int, k: float, alpha: float, beta: float, size: int, stride: int, rectify: bool,
) -> CudaArray:  # fmt: skip
    """The gradient of x in `norm_pool`, and with `rectify` that of the ReLU's argument where x is its result."""
    (_, C, H, W), (P, Q) = x.shape, dy.shape[2:]
    dx = on.empty(x.shape, x.dtype)
    before = window // 2
    numbers = (x.dtype.type(value) for value in (k, alpha, beta))
    on.launch(
        norm_pool_backward_kernel,
        x.size, dy, x, where, dx, C, H, W, P, Q, size, stride, before, window - 1 - before, *numbers, rectify,
    )  # fmt: skip
    return dx


OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv2d_relu": partial(conv2d, rectify=True),
    "linear_relu": partial(linear, rectify=True),
    "relu_conv2d_backward": conv2d_backward,  # the ReLU's result is the last argument
    "relu_conv2d_dx": conv2d_dx,
    "relu_conv2d_dw": conv2d_dw,
    "conv2d_dx": conv2d_dx,
    "conv2d_dw": conv2d_dw,
    "linear_dx": linear_dx,
    "linear_dw": linear_dw,
    "max_pool2d_relu_backward": partial(max_pool2d_backward, rectify=True),
    "norm_pool": norm_pool,
    "norm_pool_backward": norm_pool_backward,
}
"""What `minialex_cuda.compiler.fusion` puts into a program, beside the protocol's operations."""
