"""Max pooling, section 3.4: windows of size z at stride s; with s < z they overlap, as the paper's do (z=3, s=2)."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from minialex.backend.rules import pool_size
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place


@kernel("y")
def max_pool2d_kernel(i, x, y, H, W, P, Q, size, stride):
    """y[plane, p, q] = the largest of its window; NaN wins."""
    q = i % Q
    rest = i // Q
    p = rest % P
    first = (rest // P) * H * W
    best = x[first + p * stride * W + q * stride]
    for h in range(p * stride, min(p * stride + size, H)):
        for w in range(q * stride, min(q * stride + size, W)):
            value = x[first + h * W + w]
            if value > best or value != value:
                best = value
    y[i] = best


def max_pool2d(on: Place, x: CudaArray, *, size: int, stride: int, ceil: bool) -> CudaArray:
    """y[n,c,p,q] = the largest x in the window that begins at (p·stride, q·stride)."""
    N, C, H, W = x.shape
    P, Q = (pool_size(n, size, stride, ceil) for n in (H, W))
    y = on.empty((N, C, P, Q), x.dtype)
    on.launch(max_pool2d_kernel, y.size, x, y, H, W, P, Q, size, stride)
    return y


@function
def first_window(place, size, stride):
    """The first window that contains a row (or column); earlier windows end before it."""
    return max(0, (place - size + stride) // stride)


@function
def met_before(x, value, first, W, h, w, top, left, right):
    """Whether a window contains a value at a place before (h, w) in row order."""
    for row in range(top, h + 1):
        for column in range(left, w if row == h else right):
            if x[first + row * W + column] == value:
                return True
    return False


@kernel("dx")
def max_pool2d_backward_kernel(i, dy, x, y, dx, H, W, P, Q, size, stride, every, rectify):
    """dx[plane,h,w] = Σ dy over the windows whose maximum is here: the first in row order or, with `every`, any."""
    w = i % W
    rest = i // W
    h = rest % H
    plane = rest // H
    value = x[i]
    total = dy.dtype.type(0)
    for p in range(first_window(h, size, stride), min(P, h // stride + 1)):
        for q in range(first_window(w, size, stride), min(Q, w // stride + 1)):
            window = (plane * P + p) * Q + q
            if y[window] == value:
                left = q * stride
                if every or not met_before(x, value, plane * H * W, W, h, w, p * stride, left, min(left + size, W)):
                    total += dy[window]
    zero = dy.dtype.type(0)
    dx[i] = zero if rectify and not value > zero else total


def max_pool2d_backward(
    on: Place, dy: CudaArray, x: CudaArray, y: CudaArray, *, size: int, stride: int, ceil: bool, ties: str,
    rectify: bool = False,
) -> CudaArray:  # fmt: skip
    """Each window passes its dy to its maximum; every place gathers from the windows that contain it.

    With `rectify`, the gradient of the ReLU with output x is applied afterwards. The size of y shows what `ceil` was.
    """
    (H, W), (P, Q) = x.shape[2:], y.shape[2:]
    dx = on.empty(x.shape, x.dtype)
    on.launch(max_pool2d_backward_kernel, x.size, dy, x, y, dx, H, W, P, Q, size, stride, ties == "all", rectify)
    return dx
