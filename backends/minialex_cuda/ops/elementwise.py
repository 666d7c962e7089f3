"""Elementwise operations: add, scale, ReLU (section 3.1) and tanh."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import kernel
from minialex_cuda.runtime.place import Place


@kernel("x")
def fill_kernel(i, x, value):
    x[i] = value


@kernel("y")
def add_kernel(i, a, b, y):
    y[i] = a[i] + b[i]


def add(on: Place, x: CudaArray, y: CudaArray) -> CudaArray:
    """x + y."""
    total = on.empty(x.shape, x.dtype)
    on.launch(add_kernel, x.size, x, y, total)
    return total


@kernel("y")
def scale_kernel(i, x, y, factor):
    y[i] = factor * x[i]


def scale(on: Place, x: CudaArray, factor: float) -> CudaArray:
    """factor · x."""
    y = on.empty(x.shape, x.dtype)
    on.launch(scale_kernel, x.size, x, y, x.dtype.type(factor))
    return y


@kernel("y")
def relu_kernel(i, x, y):
    """y = max(x, 0); NaN stays NaN."""
    zero = x.dtype.type(0)
    y[i] = zero if x[i] <= zero else x[i]


def relu(on: Place, x: CudaArray) -> CudaArray:
    """y = max(x, 0)."""
    y = on.empty(x.shape, x.dtype)
    on.launch(relu_kernel, x.size, x, y)
    return y


@kernel("dx")
def relu_backward_kernel(i, dy, y, dx):
    zero = dy.dtype.type(0)
    dx[i] = dy[i] if y[i] > zero else zero


def relu_backward(on: Place, dy: CudaArray, y: CudaArray) -> CudaArray:
    """dx = dy where y > 0, else 0."""
    dx = on.empty(dy.shape, dy.dtype)
    on.launch(relu_backward_kernel, dy.size, dy, y, dx)
    return dx


@kernel("y")
def tanh_kernel(i, x, y):
    y[i] = math.tanh(x[i])


def tanh(on: Place, x: CudaArray) -> CudaArray:
    """y = tanh x."""
    y = on.empty(x.shape, x.dtype)
    on.launch(tanh_kernel, x.size, x, y)
    return y


@kernel("dx")
def tanh_backward_kernel(i, dy, y, dx):
    dx[i] = dy[i] * (dy.dtype.type(1) - y[i] * y[i])


def tanh_backward(on: Place, dy: CudaArray, y: CudaArray) -> CudaArray:
    """dx = dy · (1 − y²)."""
    dx = on.empty(dy.shape, dy.dtype)
    on.launch(tanh_backward_kernel, dy.size, dy, y, dx)
    return dx
