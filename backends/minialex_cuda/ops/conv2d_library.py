"""Convolution by a library (cuDNN): what lies around its calls. Without one, `minialex_cuda.ops.conv2d` does it all.

In bfloat16 the library takes operands rounded to that format with the channels last, filled up with zeros to a multiple
of eight, and gives its sums, which are float32, rounded likewise: they are brought back to N C H W and float32 as the
bias is added.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from minialex.backend.arrays import Padding
from minialex_cuda.ops.elementwise import fill_kernel, relu_backward_kernel
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place
from minialex_cuda.runtime.protocol import Convolution, Kind

CHANNELS = 8
"""Channels of bfloat16 operands are a multiple of these."""

_TOP = np.uint64(0x7F800000)
_HALF, _ONE, _SIXTEEN = np.uint64(0x7FFF), np.uint64(1), np.uint64(16)
_QUIET = np.uint64(0x0040)


@kernel("y")
def narrow_kernel(i, bits, y, N, C, padded, places):
    """y[n, place, c] = x[n, c, place] as bfloat16, rounded to nearest even; both as integers of their bits."""
    c = i % padded
    rest = i // padded
    place = rest % places
    n = rest // places
    found = np.uint64(0)
    if c < C and n < N:
        found = np.uint64(bits[(n * C + c) * places + place])
        if (found & _TOP) == _TOP:  # infinite, or not a number, which must stay one
            quiet = _QUIET if (found & np.uint64(0x7FFFFF)) != np.uint64(0) else np.uint64(0)
            found = (found >> _SIXTEEN) | quiet
        else:
            found = (found + _HALF + ((found >> _SIXTEEN) & _ONE)) >> _SIXTEEN
    y[i] = found


@function
def wide(bits):
    """A bfloat16 number, given as an integer of its bits, as float32."""
    return np.uint32(np.uint32(bits) << np.uint32(16)).view(np.float32)


@kernel("y")
def channels_first_kernel(i, bits, y, C, padded, places):
    """y[n, c, place] = x[n, place, c], of bfloat16."""
    place = i % places
    rest = i // places
    c = rest % C
    n = rest // C
    y[i] = wide(bits[(n * places + place) * padded + c])


@kernel("y")
def channels_first_bias_kernel(i, bits, b, y, K, padded, places, rectify):
    """y[n, k, place] = x[n, place, k] + b[k], of bfloat16; at least 0 if asked."""
    place = i % places
    rest = i // places
    k = rest % K
    n = rest // K
    value = wide(bits[(n * places + place) * padded + k]) + b[k]
    zero = b.dtype.type(0)
    y[i] = zero if rectify and value <= zero else value


@kernel("y")
def channel_bias_kernel(i, x, b, y, K, places, rectify):
    """y[n, k, place] = x[n, k, place] + b[k], at least 0 if asked."""
    value = x[i] + b[(i // places) % K]
    zero = b.dtype.type(0)
    y[i] = zero if rectify and value <= zero else value


def padded(C: int) -> int:
    """Channels of a bfloat16 operand."""
    return -(-C // CHANNELS) * CHANNELS


def output_size(x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: Padding) -> tuple[int, int]:
    """P and Q: how many rows and columns of places a kernel fits at."""
    (above, below), (left, right) = padding
    return (x[2] + above + below - w[2]) // stride + 1, (x[3] + left + right - w[3]) // stride + 1


def described(
    on: Place, kind: Kind, x: tuple[int, ...], w: tuple[int, ...], stride: int, padding: Padding
) -> Convolution:
    """A convolution of images and kernels of those shapes, as the library is asked for it."""
    (N, C, H, W), (K, _, R, S) = x, w
    if on.precision == "bfloat16":
        C, K = padded(C), padded(K)
    P, Q = output_size(x, w, stride, padding)
    return Convolution(kind, N, C, H, W, K, R, S, P, Q, stride, padding, on.precision)


def narrow(on: Place, x: CudaArray, rows: int) -> CudaArray:
    """x [N,C,…] as bfloat16 with the channels last: [rows, …, channels], zeros beyond N and C."""
    N, C, places = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    y = on.scratch((rows, places, padded(C)), np.uint16)
    on.launch(narrow_kernel, y.size, on.view(x, np.uint32), y, N, C, padded(C), places)
    return y


def images(on: Place, x: CudaArray) -> CudaArray:
    """x or dy as the library takes it."""
    return narrow(on, x, x.shape[0]) if on.precision == "bfloat16" else x


def kernels(on: Place, w: CudaArray) -> CudaArray:
    """w as the library takes it."""
    return narrow(on, w, padded(w.shape[0])) if on.precision == "bfloat16" else w


def forward(
    on: Place, x: CudaArray, w: CudaArray, b: CudaArray, y: CudaArray, stride: int, padding: Padding, rectify: bool
) -> bool:
    """y = conv2d(x, w, b), and the ReLU after it if asked; False if there is no library for it."""
    asked = described(on, "fprop", x.shape, w.shape, stride, padding)
    workspace = on.library(asked, x)
    if workspace is None:
        return False
    N, K, places = y.shape[0], y.shape[1], math.prod(y.shape[2:])
    if on.precision == "bfloat16":
        made = on.scratch((N, places, padded(K)), np.uint16)
        on.convolve(asked, images(on, x), kernels(on, w), made, workspace)
        on.launch(channels_first_bias_kernel, y.size, made, b, y, K, padded(K), places, rectify)
    else:
        on.convolve(asked, x, w, y, workspace)
        on.launch(channel_bias_kernel, y.size, y, b, y, K, places, rectify)
    return True


def masked(on: Place, dy: CudaArray, relu: CudaArray | None) -> CudaArray:
    """dy, or the gradient of the ReLU whose result is `relu`."""
    if relu is None:
        return dy
    found = on.scratch(dy.shape, dy.dtype)
    on.launch(relu_backward_kernel, dy.size, dy, relu, found)
    return found


def narrowed(on: Place, asked: Convolution, a: CudaArray, b: CudaArray, out: CudaArray, scratch: CudaArray) -> None:
    """A convolution whose result [rows, C, …] comes with the channels last, and more of them, in bfloat16."""
    rows, C, places = asked.K if asked.kind == "wgrad" else out.shape[0], out.shape[1], math.prod(out.shape[2:])
    made = on.scratch((rows, places, padded(C)), np.uint16)
    on.convolve(asked, a, b, made, scratch)
    on.launch(channels_first_kernel, out.size, made, out, C, padded(C), places)


def images_gradient(
    on: Place, dy: CudaArray, relu: CudaArray | None, w: CudaArray, dx: CudaArray, stride: int, padding: Padding
) -> bool:
    """dx of `conv2d_backward`, the ReLU's gradient before it if there is one; False if there is no library for it."""
    asked = described(on, "dgrad", dx.shape, w.shape, stride, padding)
    workspace = on.library(asked, dy)
    if workspace is None:
        return False
    dy = masked(on, dy, relu)
    if on.precision == "bfloat16":
        narrowed(on, asked, images(on, dy), kernels(on, w), dx, workspace)
    else:
        on.convolve(asked, dy, w, dx, workspace)
    return True


def kernels_gradient(
    on: Place, dy: CudaArray, relu: CudaArray | None, x: CudaArray, dw: CudaArray, db: CudaArray, stride: int,
    padding: Padding,
) -> bool:  # fmt: skip
    """dw and db of `conv2d_backward`, likewise."""
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
    if on.precision == "bfloat16":
        narrowed(on, asked, images(on, dy), images(on, x), dw, workspace)
    else:
        on.convolve(asked, dy, x, dw, workspace)
    return True
