"""Philox4x32-10 for kernels: the same words as `minialex.philox`, bit for bit."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import numpy as np

from minialex.philox import MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1
from minialex_cuda.kernel import function

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
_M0, _M1 = np.uint64(MULTIPLIER_0), np.uint64(MULTIPLIER_1)
_W0, _W1 = np.uint64(WEYL_0), np.uint64(WEYL_1)


@function
def philox(c0, c1, c2, c3, key):
    """Four words of 32 bits, held in 64, from a counter of such words and a key of 64 bits."""
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
