"""Response normalisation: over adjacent channels at one position (section 3.3), or neighbouring positions of a map.

Both are one kernel. An array is viewed as [others, A, M, B], and the window extends along A and B. For channels A = C,
M = H·W and B = 1; for places A = H, M = 1 and B = W.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from functools import partial

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
    """dx = dy · scale^(−β) − 2αβ · x · Σ dy·y/scale over the places whose window contains this one."""
    b = i % B
    a = (i // (B * M)) % A
    total = x.dtype.type(0)
    for a_other in range(max(0, a - a_after), min(A, a + a_before + 1)):
        for b_other in range(max(0, b - b_after), min(B, b + b_before + 1)):
            j = i + (a_other - a) * M * B + b_other - b
            total += dy[j] * y[j] / scale[j]
    two = x.dtype.type(2)
    dx[i] = dy[i] * scale[i] ** -beta - two * alpha * beta * x[i] * total


def _window(x: CudaArray, size: int, over: str) -> tuple[int, ...]:
    """A, M, B, and how far the window extends before and after, along A and along B."""
    before = size // 2
    after = size - 1 - before
    if over == "channels":
        return x.shape[1], math.prod(x.shape[2:]), 1, before, after, 0, 0
    return x.shape[2], 1, x.shape[3], before, after, before, after


def _forward(
    on: Place, x: CudaArray, *, size: int, k: float, alpha: float, beta: float, over: str
) -> tuple[CudaArray, CudaArray]:
    """y = x · scale^(−β), with a window over channels or over places of a map; returns y and scale."""
    y, scale = on.empty(x.shape, x.dtype), on.empty(x.shape, x.dtype)
    numbers = map(x.dtype.type, (k, alpha, beta))
    on.launch(response_norm_kernel, x.size, x, y, scale, *_window(x, size, over), *numbers)
    return y, scale


def _backward(
    on: Place, dy: CudaArray, x: CudaArray, y: CudaArray, scale: CudaArray, *,
    size: int, alpha: float, beta: float, over: str,
) -> CudaArray:  # fmt: skip
    """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c']."""
    dx = on.empty(x.shape, x.dtype)
    numbers = map(x.dtype.type, (alpha, beta))
    on.launch(response_norm_backward_kernel, x.size, dy, x, y, scale, dx, *_window(x, size, over), *numbers)
    return dx


local_response_norm = partial(_forward, over="channels")
local_response_norm_backward = partial(_backward, over="channels")
spatial_response_norm = partial(_forward, over="places")
spatial_response_norm_backward = partial(_backward, over="places")
