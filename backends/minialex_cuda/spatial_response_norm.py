"""Normalisation over neighbouring places of one channel: in the 2012 program's second layer, not in the paper."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from minialex_cuda.array import CudaArray
from minialex_cuda.kernel import kernel
from minialex_cuda.place import Place


@kernel("y", "scale")
def spatial_response_norm_kernel(i, x, y, scale, H, W, before, after, k, alpha, beta):
    """scale[plane,h,w] = k + α · Σ x² over the window around (h, w);  y = x · scale^(−β)."""
    w = i % W
    h = (i // W) % H
    total = x.dtype.type(0)
    for row in range(max(0, h - before), min(H, h + after + 1)):
        for column in range(max(0, w - before), min(W, w + after + 1)):
            value = x[i + (row - h) * W + column - w]
            total += value * value
    found = k + alpha * total
    scale[i] = found
    y[i] = x[i] * found**-beta


def spatial_response_norm(
    on: Place, x: CudaArray, *, size: int, k: float, alpha: float, beta: float
) -> tuple[CudaArray, CudaArray]:
    """y = x · scale^(−β); returns y and scale."""
    y, scale = on.empty(x.shape, x.dtype), on.empty(x.shape, x.dtype)
    before = size // 2
    numbers = (x.dtype.type(value) for value in (k, alpha, beta))
    on.launch(spatial_response_norm_kernel, x.size, x, y, scale, *x.shape[2:], before, size - 1 - before, *numbers)
    return y, scale


@kernel("dx")
def spatial_response_norm_backward_kernel(i, dy, x, y, scale, dx, H, W, before, after, alpha, beta):
    """dx = dy · scale^(−β) − 2αβ · x · Σ dy·y/scale over the places whose window holds this one."""
    w = i % W
    h = (i // W) % H
    total = x.dtype.type(0)
    for row in range(max(0, h - after), min(H, h + before + 1)):
        for column in range(max(0, w - after), min(W, w + before + 1)):
            j = i + (row - h) * W + column - w
            total += dy[j] * y[j] / scale[j]
    two = x.dtype.type(2)
    dx[i] = dy[i] * scale[i] ** -beta - two * alpha * beta * x[i] * total


def spatial_response_norm_backward(
    on: Place,
    dy: CudaArray,
    x: CudaArray,
    y: CudaArray,
    scale: CudaArray,
    *,
    size: int,
    alpha: float,
    beta: float,
) -> CudaArray:
    """As `local_response_norm_backward`, over the windows of `spatial_response_norm`."""
    dx = on.empty(x.shape, x.dtype)
    before = size // 2
    numbers = (x.dtype.type(value) for value in (alpha, beta))
    on.launch(
        spatial_response_norm_backward_kernel,
        x.size, dy, x, y, scale, dx, *x.shape[2:], before, size - 1 - before, *numbers,
    )  # fmt: skip
    return dx
