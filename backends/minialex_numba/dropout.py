"""Dropout: masks from Philox4x32-10, the same words as `minialex.philox`, four at a time."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from minialex.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1, Stream
from minialex_numba.elementwise import GRAIN
from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)


@kernel
def philox(c0, c1, c2, c3, k0, k1):
    """Four words of 32 bits from a counter and a key of such words, all held in 64 bits."""
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
def mask_kernel(worker, begin, end, mask, mask0, ldm, C, places, threshold, key, sample, element, step, purpose):
    """mask[n, place, channel] for element = channel · places + place; items are blocks of four elements of a sample.

    A row of features is one place with C channels; `ldm` is the distance between places.
    """
    k0, k1 = np.uint64(key & 0xFFFFFFFF), np.uint64(key >> np.uint64(32))
    elements = C * places
    lead = element % 4
    blocks = (lead + elements + 3) // 4
    for item in range(begin, end):
        n, block = divmod(item, blocks)
        words = philox(
            np.uint64(element // 4 + block) & _LOW,
            np.uint64(sample + n) & _LOW,
            np.uint64(step),
            np.uint64(purpose),
            k0,
            k1,
        )
        for i in range(4):
            e = 4 * block + i - lead
            if 0 <= e < elements:
                mask[mask0 + (n * places + e % places) * ldm + e // places] = words[i] >= threshold


@kernel
def apply_kernel(worker, begin, end, width, x, x0, ldx, mask, mask0, ldm, y, y0, ldy, factor):
    """y = factor · x where the mask is 1, else 0; see `minialex_numba.elementwise`."""
    zero = x.dtype.type(0)
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b, c = x0 + row * ldx + column, mask0 + row * ldm + column, y0 + row * ldy + column
        for i in range(count):
            y[c + i] = x[a + i] * factor if mask[b + i] else zero
        begin += count


def draw(
    pool: Pool, mask: NDArray[np.uint8], shape: tuple[int, int, int], ld: int, rate: float, stream: Stream
) -> None:
    """Fill a mask of so many (samples, places, channels), in that order in memory."""
    N, places, C = shape
    blocks = -(-(stream.first_element % 4 + C * places) // 4)
    pool.run(
        mask_kernel, N * blocks, mask, 0, ld, C, places, np.uint64(int(rate * 2**32)), np.uint64(stream.seed),
        stream.first_sample, stream.first_element, stream.step, stream.purpose, grain=GRAIN // 8,
    )  # fmt: skip


def dropout(pool: Pool, x: Floats, *, rate: float, factor: float, stream: Stream) -> tuple[Floats, NDArray[np.uint8]]:
    """y = factor · x where the Philox word of (sample, element) is at least rate · 2³², else 0; returns y and mask."""
    y, mask = np.empty_like(x), np.empty(x.shape, np.uint8)
    E = math.prod(x.shape[1:])
    draw(pool, mask.reshape(-1), (x.shape[0], 1, E), E, rate, stream)
    flat = x.reshape(-1), 0, 0, mask.reshape(-1), 0, 0, y.reshape(-1), 0, 0
    pool.run(apply_kernel, x.size, x.size, *flat, x.dtype.type(factor), grain=GRAIN)
    return y, mask


def dropout_backward(pool: Pool, dy: Floats, mask: NDArray[np.uint8], *, factor: float) -> Floats:
    """dx = factor · dy where the unit spoke, else 0."""
    dx = np.empty_like(dy)
    flat = dy.reshape(-1), 0, 0, mask.reshape(-1), 0, 0, dx.reshape(-1), 0, 0
    pool.run(apply_kernel, dy.size, dy.size, *flat, dy.dtype.type(factor), grain=GRAIN)
    return dx
