"""Convolution of channels-first maps by a library (cuDNN): the code around its calls. Without a library,
`minialex_cuda.ops.conv2d` does it all.

Compiled steps have such maps only if channels are not a multiple of four (in bfloat16, of eight). The maps are float32;
if products are to be in bfloat16, operands are rounded to tf32 here, which is finer.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex.backend.arrays import Padding
from minialex_cuda.ops.elementwise import fill_kernel, relu_backward_kernel
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place
from minialex_cuda.runtime.protocol import Convolution, Kind, Precision


@kernel("y")
def channel_bias_kernel(i, x, b, y, K, places, rectify):
    """y[n, k, place] = x[n, k, place] + b[k], optionally rectified."""
    value = x[i] + b[(i // places) % K]
    zero = b.dtype.type(0)
    y[i] = zero if rectify and value <= zero else value


def output_size(x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: Padding) -> tuple[int, int]:
    """P and Q: the rows and columns of positions at which a kernel fits."""
    (above, below), (left, right) = padding
    return (x[2] + above + below - w[2]) // stride + 1, (x[3] + left + right - w[3]) // stride + 1


def described(
    on: Place, kind: Kind, x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: Padding
) -> Convolution:
    """Describe a convolution of images and kernels of those shapes for the library."""
    (N, C, H, W), (K, _, R, S) = x, w
    P, Q = output_size(x, w, stride, padding)
    precision: Precision = "tf32" if on.precision == "bfloat16" else on.precision
    return Convolution(kind, N, C, H, W, K, R, S, P, Q, stride, padding, precision)


def forward(
    on: Place, x: CudaArray, w: CudaArray, b: CudaArray, y: CudaArray, stride: int, padding: Padding, rectify: bool
) -> bool:
    """y = conv2d(x, w, b), with `rectify` followed by the ReLU; False if no library can do it."""
    asked = described(on, "fprop", x.shape, w.shape, stride, padding)
    workspace = on.library(asked, x)
    if workspace is None:
        return False
    on.convolve(asked, x, w, y, workspace)
    on.launch(channel_bias_kernel, y.size, y, b, y, y.shape[1], math.prod(y.shape[2:]), rectify)
    return True


def masked(on: Place, dy: CudaArray, relu: CudaArray | None) -> CudaArray:
    """dy, or its gradient through the ReLU with output `relu`."""
    if relu is None:
        return dy
    found = on.scratch(dy.shape, dy.dtype)
    on.launch(relu_backward_kernel, dy.size, dy, relu, found)
    return found


def images_gradient(
    on: Place, dy: CudaArray, relu: CudaArray | None, w: CudaArray, dx: CudaArray, stride: int, padding: Padding
) -> bool:
    """dx of `conv2d_backward`, through the ReLU's gradient first if there is one; False if no library can do it."""
    asked = described(on, "dgrad", dx.shape, w.shape, stride, padding)
    workspace = on.library(asked, dy)
    if workspace is None:
        return False
    on.convolve(asked, masked(on, dy, relu), w, dx, workspace)
    return True


def kernels_gradient(
    on: Place, dy: CudaArray, relu: CudaArray | None, x: CudaArray, dw: CudaArray, db: CudaArray, stride: int,
    padding: Padding,
) -> bool:  # fmt: skip
    """dw and db of `conv2d_backward`; see `images_gradient`."""
    asked = described(on, "wgrad", x.shape, dw.shape, stride, padding)
    workspace = on.library(asked, dy)
    if workspace is None:
        return False
    dy = masked(on, dy, relu)
    (N, K), maps = dy.shape[:2], math.prod(dy.shape[2:])
    ones, sums = on.scratch((max(maps, N),), dy.dtype), on.scratch((N, K), dy.dtype)
    on.launch(fill_kernel, ones.size, ones, dy.dtype.type(1))
    on.multiply(dy, ones, sums, N * K, 1, maps, exact=True)
    on.multiply(ones, sums, db, 1, K, N, exact=True)
    on.convolve(asked, dy, x, dw, workspace)
    return True
