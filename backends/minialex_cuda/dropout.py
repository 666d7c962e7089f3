"""Dropout, section 4.2: each unit is silent with probability `rate`, by a mask drawn from a counter."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np

from minialex.philox import Stream
from minialex_cuda.array import CudaArray
from minialex_cuda.kernel import kernel
from minialex_cuda.philox import LOW, philox
from minialex_cuda.place import Place


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
    """`dropout`, with the stream's step on the device: a captured graph cannot change the arguments of a kernel."""
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
    """dx = factor · dy where the unit spoke, else 0."""
    dx = on.empty(dy.shape, dy.dtype)
    on.launch(dropout_backward_kernel, dy.size, dy, mask, dx, dy.dtype.type(factor))
    return dx
