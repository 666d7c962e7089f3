"""Local response normalisation, section 3.3: neighbouring channels at the same place inhibit each other."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex_cuda.array import CudaArray
from minialex_cuda.kernel import kernel
from minialex_cuda.place import Place


@kernel("y", "scale")
def local_response_norm_kernel(i, x, y, scale, C, places, before, after, k, alpha, beta):
    """scale[n,c,place] = k + α · Σ x² over channels c − before … c + after;  y = x · scale^(−β)."""
    c = (i // places) % C
    total = x.dtype.type(0)
    for other in range(max(0, c - before), min(C, c + after + 1)):
        value = x[i + (other - c) * places]
        total += value * value
    found = k + alpha * total
    scale[i] = found
    y[i] = x[i] * found**-beta


def local_response_norm(
    on: Place, x: CudaArray, *, size: int, k: float, alpha: float, beta: float
) -> tuple[CudaArray, CudaArray]:
    """y = x · scale^(−β); returns y and scale."""
    y, scale = on.empty(x.shape, x.dtype), on.empty(x.shape, x.dtype)
    before = size // 2
    numbers = (x.dtype.type(value) for value in (k, alpha, beta))
    on.launch(
        local_response_norm_kernel,
        x.size, x, y, scale, x.shape[1], math.prod(x.shape[2:]), before, size - 1 - before, *numbers,
    )  # fmt: skip
    return y, scale


@kernel("dx")
def local_response_norm_backward_kernel(i, dy, x, y, scale, dx, C, places, before, after, alpha, beta):
    """dx = dy · scale^(−β) − 2αβ · x · Σ dy·y/scale over the channels whose window holds this one."""
    c = (i // places) % C
    total = x.dtype.type(0)
    for other in range(max(0, c - after), min(C, c + before + 1)):
        j = i + (other - c) * places
        total += dy[j] * y[j] / scale[j]
    two = x.dtype.type(2)
    dx[i] = dy[i] * scale[i] ** -beta - two * alpha * beta * x[i] * total


def local_response_norm_backward(
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
    """dx[c] = dy[c] · scale[c]^(−β) − 2αβ · x[c] · Σ_{c': c in the window of c'} dy[c'] · y[c'] / scale[c']."""
    dx = on.empty(x.shape, x.dtype)
    before = size // 2
    numbers = (x.dtype.type(value) for value in (alpha, beta))
    on.launch(
        local_response_norm_backward_kernel,
        x.size, dy, x, y, scale, dx, x.shape[1], math.prod(x.shape[2:]), before, size - 1 - before, *numbers,
    )  # fmt: skip
    return dx
