"""Convolution, section 3.5, by im2col: patches become the columns of a matrix, and a matrix product does the rest.

Letters: N images, C channels, H W input size, K kernels, R S kernel size, P Q output size. The matrix of patches is
[C·R·S, N·P·Q]; a batch whose matrix would be too large is split into pieces of several images.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from minialex.backend.arrays import Padding
from minialex_cuda.ops import conv2d_library as library
from minialex_cuda.ops.elementwise import fill_kernel
from minialex_cuda.runtime import place
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place


@kernel("patches")
def patches_kernel(i, x, patches, first, images, C, H, W, R, S, P, Q, stride, above, left):
    """patches[c,r,s, n,p,q] = x̄[first + n, c, p·stride + r, q·stride + s], x̄ = x with zero padding."""
    q = i % Q
    rest = i // Q
    p = rest % P
    rest //= P
    n = rest % images
    rest //= images
    s = rest % S
    rest //= S
    r = rest % R
    c = rest // R
    h = p * stride + r - above
    w = q * stride + s - left
    value = x.dtype.type(0)
    if 0 <= h < H and 0 <= w < W:
        value = x[(((first + n) * C + c) * H + h) * W + w]
    patches[i] = value


@kernel("y")
def to_images_kernel(i, flat, b, y, first, images, K, places, rectify):
    """y[first + n, k, place] = flat[k, n, place] + b[k]: kernels' rows become images' maps; optionally rectified."""
    place = i % places
    rest = i // places
    k = rest % K
    n = rest // K
    value = flat[(k * images + n) * places + place] + b[k]
    zero = b.dtype.type(0)
    y[first * K * places + i] = zero if rectify and value <= zero else value


@kernel("flat")
def to_rows_kernel(i, dy, y, flat, first, images, K, places, rectify):
    """flat[k, n, place] = dy[first + n, k, place]: the inverse; with `rectify`, 0 where y is not positive."""
    place = i % places
    rest = i // places
    n = rest % images
    k = rest // images
    j = ((first + n) * K + k) * places + place
    zero = dy.dtype.type(0)
    flat[i] = zero if rectify and not y[j] > zero else dy[j]


@kernel("dx")
def from_patches_kernel(i, back, dx, first, images, C, H, W, R, S, P, Q, stride, above, left):
    """dx[first + n, c, h, w] = Σ of back[c,r,s, n,p,q] over the patches that contain it."""
    w = i % W
    rest = i // W
    h = rest % H
    rest //= H
    c = rest % C
    n = rest // C
    total = back.dtype.type(0)
    for r in range((h + above) % stride, R, stride):
        p = (h + above - r) // stride
        if 0 <= p < P:
            for s in range((w + left) % stride, S, stride):
                q = (w + left - s) // stride
                if 0 <= q < Q:
                    total += back[((((c * R + r) * S + s) * images + n) * P + p) * Q + q]
    dx[first * C * H * W + i] = total


def pieces(N: int, bytes_each: int) -> list[tuple[int, int]]:
    """(first image, count) of pieces whose matrices of patches are small enough."""
    most = max(1, place.SCRATCH // max(bytes_each, 1))
    return [(first, min(most, N - first)) for first in range(0, N, most)]


def conv2d(
    on: Place, x: CudaArray, w: CudaArray, b: CudaArray, *, stride: int, padding: Padding, rectify: bool = False
) -> CudaArray:
    """y[k] = b[k] + w[k] · patches; with `rectify`, the ReLU is applied as the bias is added."""
    (N, C, H, W), (K, _, R, S) = x.shape, w.shape
    P, Q = library.output_size(x.shape, w.shape, stride, padding)
    y = on.empty((N, K, P, Q), x.dtype)
    if library.forward(on, x, w, b, y, stride, padding, rectify):
        return y
    D, places = C * R * S, P * Q
    for first, images in pieces(N, D * places * x.dtype.itemsize):
        patches = on.scratch((D, images * places), x.dtype)
        flat = on.scratch((K, images * places), x.dtype)
        numbers = first, images, C, H, W, R, S, P, Q, stride, padding[0][0], padding[1][0]
        on.launch(patches_kernel, patches.size, x, patches, *numbers)
        on.multiply(w, patches, flat, K, images * places, D)
        on.launch(to_images_kernel, flat.size, flat, b, y, first, images, K, places, rectify)
    return y


def conv2d_backward(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding, need_dx: bool,
) -> tuple[CudaArray | None, CudaArray, CudaArray]:  # fmt: skip
    """dw = dy · patchesᵀ;  db = dy · 1;  dx is gathered, place by place, from the patches' gradient wᵀ · dy.

    With `relu`, the output of a ReLU, that ReLU's gradient is applied first.
    """
    dx = conv2d_dx(on, dy, x, w, relu, stride=stride, padding=padding) if need_dx else None
    return dx, *conv2d_dw(on, dy, x, w, relu, stride=stride, padding=padding)


def conv2d_dx(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding,
) -> CudaArray:  # fmt: skip
    """The gradient dx; only the shape of x is used."""
    (N, C, H, W), (K, _, R, S), (P, Q) = x.shape, w.shape, dy.shape[2:]
    dx = on.empty(x.shape, x.dtype)
    if library.images_gradient(on, dy, relu, w, dx, stride, padding):
        return dx
    D, places = C * R * S, P * Q
    for first, images in pieces(N, D * places * x.dtype.itemsize):
        many = images * places
        rows = on.scratch((K, many), dy.dtype)
        back = on.scratch((D, many), x.dtype)
        numbers = first, images, C, H, W, R, S, P, Q, stride, padding[0][0], padding[1][0]
        on.launch(to_rows_kernel, rows.size, dy, relu or dy, rows, first, images, K, places, relu is not None)
        on.multiply(w, rows, back, D, many, K, transpose_a=True)
        on.launch(from_patches_kernel, images * C * H * W, back, dx, *numbers)
    return dx


def conv2d_dw(
    on: Place, dy: CudaArray, x: CudaArray, w: CudaArray, relu: CudaArray | None = None, *,
    stride: int, padding: Padding,
) -> tuple[CudaArray, CudaArray]:  # fmt: skip
    """The gradients of the weights and the bias; only the shape of w is used."""
    (N, C, H, W), (K, _, R, S), (P, Q) = x.shape, w.shape, dy.shape[2:]
    dw, db = on.empty(w.shape, w.dtype), on.empty((K,), w.dtype)
    if library.kernels_gradient(on, dy, relu, x, dw, db, stride, padding):
        return dw, db
    D, places = C * R * S, P * Q
    if not N:
        on.clear(dw)
        on.clear(db)
    for first, images in pieces(N, D * places * x.dtype.itemsize):
        many, more = images * places, first > 0
        rows = on.scratch((K, many), dy.dtype)
        patches = on.scratch((D, many), x.dtype)
        ones = on.scratch((many,), dy.dtype)
        numbers = first, images, C, H, W, R, S, P, Q, stride, padding[0][0], padding[1][0]
        on.launch(to_rows_kernel, rows.size, dy, relu or dy, rows, first, images, K, places, relu is not None)
        on.launch(patches_kernel, patches.size, x, patches, *numbers)
        on.launch(fill_kernel, many, ones, dy.dtype.type(1))
        on.multiply(rows, patches, dw, K, D, many, transpose_b=True, accumulate=more)
        on.multiply(rows, ones, db, K, 1, many, accumulate=more, exact=True)
    return dw, db
