"""Dropout: masks from Philox4x32-10, the same words as `minialex.philox`, four at a time."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minialex.backend.program import Value
from minialex.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1, Stream
from minialex_numba.ops.elementwise import GRAIN, node, span
from minialex_numba.runtime.buffers import Bind, Buffers, in_order, row_width
from minialex_numba.runtime.jit import kernel, part

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)


@part
def philox(c0, c1, c2, c3, k0, k1):
    """Four 32-bit words from a counter and a key of 32-bit words, all held in 64-bit integers."""
    for _ in range(ROUNDS):
        product_0 = c0 * _M0
        product_1 = c2 * _M1
        c0, c1, c2, c3 = (
            (product_1 >> _HALF) ^ c1 ^ k0,
            product_1 & _LOW,
            (product_0 >> _HALF) ^ c3 ^ k1,
            product_0 & _LOW,
        )
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@kernel
def mask_kernel(worker, begin, end, mask, C, places, threshold, key, sample, element, step, purpose):
    """mask[n, place, channel] for element = channel · places + place; items are blocks of four elements of a sample.

    A row of features is one place with C channels.
    """
    mask, mask0, ldm = mask
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> np.uint64(32))
    now = np.uint64(step[0])
    elements = C * places
    lead = element % 4
    blocks = (lead + elements + 3) // 4
    for item in range(begin, end):
        n, block = divmod(item, blocks)
        words = philox(
            np.uint64(element // 4 + block) & _LOW, np.uint64(sample + n) & _LOW, now, np.uint64(purpose), k0, k1,
        )  # fmt: skip
        for i in range(4):
            e = 4 * block + i - lead
            if 0 <= e < elements:
                channel, place = (e, 0) if places == 1 else divmod(e, places)  # features need no division
                mask[mask0 + (n * places + place) * ldm + channel] = words[i] >= threshold


@kernel
def apply_kernel(worker, begin, end, width, x, mask, factor, y):
    """y = factor · x where the mask is 1, else 0; see `minialex_numba.ops.elementwise`."""
    (x, x0, ldx), (mask, mask0, ldm), (y, y0, ldy) = x, mask, y
    zero = x.dtype.type(0)
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b, c = x0 + row * ldx + first, mask0 + row * ldm + first, y0 + row * ldy + first
        for i in range(count):
            y[c + i] = x[a + i] * factor if mask[b + i] else zero
        begin += count


dropout_backward = node(apply_kernel)
"""dx = factor · dy where the unit was kept, else 0."""


def dropout(on: Buffers, results: Sequence[Value], x: Value, *, rate: float, factor: float, stream: Stream) -> Bind:
    """y = factor · x where the Philox word of (sample, element) is at least rate · 2³², else 0; results are y and mask."""
    y, mask = results
    apply = dropout_backward(on, [y], x, mask, factor=factor)
    N, C, places = x.shape[0], row_width(x), math.prod(x.shape[2:])
    blocks = -(-(stream.first_element % 4 + C * places) // 4)
    draw = on.launch(
        mask_kernel, N * blocks, mask, C, places, np.uint64(int(rate * 2**32)), np.uint64(stream.seed),
        stream.first_sample, stream.first_element, on.numbers([stream.step], np.int64), stream.purpose, grain=GRAIN // 8,
    )  # fmt: skip
    return lambda: in_order(draw(), apply())
