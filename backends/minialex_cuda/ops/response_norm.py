"""Response normalisation: over neighbouring channels at the same place (section 3.3), or neighbouring places of a map.

Both are one kernel. An array is looked at as [others, A, M, B]; the window goes along A and B. For channels A = C,
M = H·W and B = 1; for places A = H, M = 1 and B = W.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place


@kernel("y", "scale")
def response_norm_kernel(i, x, y, scale, A, M, B, a_before, a_after, b_before, b_after, k, alpha, beta):
    """scale = k + α · Σ x² over the window;  y = x · scale^(−β)."""
    b = i % B
    a = (i // (B * M)) % A
    total = x.dtype.type(0)
    for a_other in range(max(0, a - a_before), min(A, a + a_after + 1)):
        for b_other in range(max(0, b - b_before), min(B, b + b_after + 1)):
            value = x[i + (a_other - a) * M * B + b_other - b]
            total += value * value
    found = k + alpha * total
    scale[i] = found
    y[i] = x[i] * found**-beta


@kernel("dx")
def response_norm_backward_kernel(i, dy, x, y, scale, dx, A, M, B, a_before, a_after, b_before, b_after, alpha, beta):
    """dx = dy · scale^(−β) − 2αβ · x · Σ dy·y/scale over the places whose window holds this one."""
    b = i % B
    a = (i // (B * M)) % A
    total = x.dtype.type(0)
    for a_other in range(max(0, a - a_after), min(A, a + a_before + 1)):
        for b_other in range(max(0, b - b_after), min(B, b + b_before + 1)):
            j = i + (a_other - a) * M * B + b_other - b
            total += dy[j] * y[j] / scale[j]
    two = x.dtype.type(2)
    dx[i] = dy[i] * scale[i] ** -beta - two * alpha * beta * x[i] * total


Window = tuple[int, int, int, int, int, int, int]
"""A, M, B, and how far the window goes before and after along A and along B."""


def channels(x: CudaArray, size: int) -> Window:
    """The window of `local_response_norm`."""
    before = size // 2
    return x.shape[1], math.prod(x.shape[2:]), 1, before, size - 1 - before, 0, 0


def places(x: CudaArray, size: int) -> Window:
    """The window of `spatial_response_norm`."""
    before = size // 2
    return x.shape[2], 1, x.shape[3], before, size - 1 - before, before, size - 1 - before


def _forward(on: Place, x: CudaArray, window: Window, *numbers: float) -> tuple[CudaArray, CudaArray]:
    y, scale = on.empty(x.shape, x.dtype), on.empty(x.shape, x.dtype)
    on.launch(response_norm_kernel, x.size, x, y, scale, *window, *map(x.dtype.type, numbers))
    return y, scale


def _backward(
    on: Place, dy: CudaArray, x: CudaArray, y: CudaArray, scale: CudaArray, window: Window, *numbers: float
) -> CudaArray:
    dx = on.empty(x.shape, x.dtype)
    on.launch(response_norm_backward_kernel, x.size, dy, x, y, scale, dx, *window, *map(x.dtype.type, numbers))
    return dx


def local_response_norm(
    on: Place, x: CudaArray, *, size: int, k: float, alpha: float, beta: float
) -> tuple[CudaArray, CudaArray]:
    """y = x · scale^(−β), the window over channels; returns y and scale."""
    return _forward(on, x, channels(x, size), k, alpha, beta)


def local_response_norm_backward(
    on: Place, dy: CudaArray, x: CudaArray, y: CudaArray, scale: CudaArray, *, size: int, alpha: float, beta: float
) -> CudaArray:
    """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c']."""
    return _backward(on, dy, x, y, scale, channels(x, size), alpha, beta)


def spatial_response_norm(
    on: Place, x: CudaArray, *, size: int, k: float, alpha: float, beta: float
) -> tuple[CudaArray, CudaArray]:
    """y = x · scale^(−β), the window over places of a map; returns y and scale."""
    return _forward(on, x, places(x, size), k, alpha, beta)


def spatial_response_norm_backward(
    on: Place, dy: CudaArray, x: CudaArray, y: CudaArray, scale: CudaArray, *, size: int, alpha: float, beta: float
) -> CudaArray:
    """As `local_response_norm_backward`, over the windows of `spatial_response_norm`."""
    return _backward(on, dy, x, y, scale, places(x, size), alpha, beta)
