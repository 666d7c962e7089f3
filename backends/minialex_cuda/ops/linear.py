"""The fully connected layer, section 3.5: a matrix product and a bias. N images, D inputs, K outputs."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from minialex_cuda.ops.elementwise import fill_kernel
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place


@kernel("y")
def bias_kernel(i, y, b, K, rectify):
    """y[n,k] += b[k], optionally rectified."""
    value = y[i] + b[i % K]
    zero = b.dtype.type(0)
    y[i] = zero if rectify and value <= zero else value


def linear(on: Place, x: CudaArray, w: CudaArray, b: CudaArray, *, rectify: bool = False) -> CudaArray:
    """y = x wᵀ + b; with `rectify`, the ReLU is applied as the bias is added."""
    (N, D), K = x.shape, w.shape[0]
    y = on.empty((N, K), x.dtype)
    on.multiply(x, w, y, N, K, D, transpose_b=True)
    on.launch(bias_kernel, y.size, y, b, K, rectify)
    return y


def linear_backward(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, *, need_dx: bool
) -> tuple[CudaArray | None, CudaArray, CudaArray]:
    """dx = dy w;  dw = dyᵀ x;  db = 1 · dy."""
    dx = linear_dx(on, dy, w) if need_dx else None
    return dx, *linear_dw(on, dy, x)


def linear_dx(on: Place, dy: CudaArray, w: CudaArray) -> CudaArray:
    """The gradient dx."""
    (N, K), D = dy.shape, w.shape[1]
    dx = on.empty((N, D), dy.dtype)
    on.multiply(dy, w, dx, N, D, K)
    return dx


def linear_dw(on: Place, dy: CudaArray, x: CudaArray) -> tuple[CudaArray, CudaArray]:
    """The gradients of the weights and the bias."""
    (N, K), D = dy.shape, x.shape[1]
    dw, db = on.empty((K, D), dy.dtype), on.empty((K,), dy.dtype)
    on.multiply(dy, x, dw, K, D, N, transpose_a=True)
    ones = on.scratch((N,), dy.dtype)
    on.launch(fill_kernel, N, ones, dy.dtype.type(1))
    on.multiply(ones, dy, db, 1, K, N, exact=True)
    return dw, db
