"""Dropout, section 4.2: each unit is dropped with probability `rate`, by a mask drawn from a counter."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from minialex.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1, Stream
from minialex_cuda.runtime.array import CudaArray
from minialex_cuda.runtime.kernel import function, kernel
from minialex_cuda.runtime.place import Place

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)


@function
def philox(c0, c1, c2, c3, key):
    """Philox4x32-10, the same as `minialex.philox`: four 32-bit words, in 64-bit integers, from a counter and a key."""
    k0 = key & LOW
    k1 = key >> HALF
    for _ in range(ROUNDS):
        product_0 = c0 * _M0
        product_1 = c2 * _M1
        c0, c1, c2, c3 = (
            (product_1 >> HALF) ^ c1 ^ k0,
            product_1 & LOW,
            (product_0 >> HALF) ^ c3 ^ k1,
            product_0 & LOW,
        )
        k0 = (k0 + _W0) & LOW
        k1 = (k1 + _W1) & LOW
    return c0, c1, c2, c3


@kernel("y", "mask")
def dropout_kernel(
    i, x, y, mask, E, lead, blocks, threshold, factor, key, first_block, first_sample, step, purpose
):  # fmt: skip
    """A block of four elements of one sample: y = factor · x where the element's word is at least the threshold."""
    n = i // blocks
    block = i - n * blocks
    words = philox((first_block + np.uint64(block)) & LOW, (first_sample + np.uint64(n)) & LOW, step[0], purpose, key)
    zero = x.dtype.type(0)
    for j in range(4):
        e = 4 * block + j - lead
        if 0 <= e < E:
            speaks = words[j] >= threshold
            mask[n * E + e] = 1 if speaks else 0
            y[n * E + e] = factor * x[n * E + e] if speaks else zero


def dropout(on: Place, x: CudaArray, *, rate: float, factor: float, stream: Stream) -> tuple[CudaArray, CudaArray]:
    """y = factor · x where the Philox word of (sample, element) is at least rate · 2³², else 0; returns y and mask."""
    step = on.scratch((1,), np.uint64)
    on.launch(step_kernel, 1, step, np.uint64(stream.step))
    return dropout_at(on, x, step, rate=rate, factor=factor, stream=stream)


@kernel("step")
def step_kernel(i, step, value):
    step[i] = value


def dropout_at(
    on: Place, x: CudaArray, step: CudaArray, *, rate: float, factor: float, stream: Stream
) -> tuple[CudaArray, CudaArray]:
    """`dropout` with the stream's step on the device, since a captured graph cannot change a kernel's arguments."""
    N, E = x.shape[0], math.prod(x.shape[1:])
    y, mask = on.empty(x.shape, x.dtype), on.empty(x.shape, np.uint8)
    lead = stream.first_element % 4
    blocks = -(-(lead + E) // 4)
    counter = (stream.seed, stream.first_element // 4, stream.first_sample)
    on.launch(
        dropout_kernel, N * blocks if E else 0, x, y, mask, E, lead, blocks, np.uint64(int(rate * 2**32)),
        x.dtype.type(factor), *(np.uint64(value) for value in counter), step, np.uint64(stream.purpose),
    )  # fmt: skip
    return y, mask


@kernel("dx")
def dropout_backward_kernel(i, dy, mask, dx, factor):
    dx[i] = factor * dy[i] if mask[i] == 1 else dy.dtype.type(0)


def dropout_backward(on: Place, dy: CudaArray, mask: CudaArray, *, factor: float) -> CudaArray:
    """dx = factor · dy where the unit was kept, else 0."""
    dx = on.empty(dy.shape, dy.dtype)
    on.launch(dropout_backward_kernel, dy.size, dy, mask, dx, dy.dtype.type(factor))
    return dx
