"""Operations on one element at a time: relu, tanh, scale, add.

Every kernel works on rows of `width` numbers that lie `ldx`, `ldy`, … apart, and counts its items in numbers, row after
row; a contiguous array is one row.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

import numpy as np

from minialex_numba.kernels import kernel
from minialex_numba.layout import Floats
from minialex_numba.pool import Pool

GRAIN = 1 << 14


def _lambert(levels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Coefficients in x² of N and D with tanh x ≈ x·N/D: Lambert's continued fraction x/(1 + x²/(3 + x²/(5 + …)))."""
    above, below = [2 * levels - 1], [1]
    for odd in range(2 * levels - 3, 0, -2):
        raised = [0, *below]
        above += [0] * (len(raised) - len(above))
        raised += [0] * (len(above) - len(raised))
        above, below = [odd * a + r for a, r in zip(above, raised, strict=True)], above
    return tuple(c / above[0] for c in below if c), tuple(c / above[0] for c in above if c)


N, D = _lambert(13)  # all positive, so nothing cancels: within 5.1e-8 of tanh x, relatively, up to LARGEST
LARGEST = 9.2  # from 9.02 on, the float32 nearest to tanh x is 1


@kernel
def relu_kernel(worker, begin, end, width, x, x0, ldx, y, y0, ldy):
    zero = x.dtype.type(0)
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b = x0 + row * ldx + column, y0 + row * ldy + column
        for i in range(count):
            value = x[a + i]
            y[b + i] = zero if value <= zero else value  # not a number stays
        begin += count


@kernel
def relu_backward_kernel(worker, begin, end, width, dy, dy0, lddy, y, y0, ldy, dx, dx0, lddx):
    zero = y.dtype.type(0)
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b, c = dy0 + row * lddy + column, y0 + row * ldy + column, dx0 + row * lddx + column
        for i in range(count):
            dx[c + i] = dy[a + i] if y[b + i] > zero else zero
        begin += count


@kernel
def tanh_kernel(worker, begin, end, width, x, x0, ldx, y, y0, ldy):
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b = x0 + row * ldx + column, y0 + row * ldy + column
        for i in range(count):
            y[b + i] = np.tanh(x[a + i])
        begin += count


@kernel
def tanh32_kernel(worker, begin, end, width, x, x0, ldx, y, y0, ldy):
    # a library's tanh is called number by number; this is straight arithmetic in float64, eight numbers at once
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b = x0 + row * ldx + column, y0 + row * ldy + column
        for i in range(count):
            v = np.float64(x[a + i])
            v = np.float64(LARGEST) if v > LARGEST else v  # not a number stays
            v = np.float64(-LARGEST) if v < -LARGEST else v
            z = v * v
            n = N[0] + z * (N[1] + z * (N[2] + z * (N[3] + z * (N[4] + z * (N[5] + z * N[6])))))
            d = D[0] + z * (D[1] + z * (D[2] + z * (D[3] + z * (D[4] + z * (D[5] + z * D[6])))))
            y[b + i] = np.float32(v * n / d)
        begin += count


def tanh_kernel_of(dtype: np.dtype[Any]) -> Any:
    """The kernel for numbers of a dtype."""
    return tanh32_kernel if dtype == np.float32 else tanh_kernel


@kernel
def tanh_backward_kernel(worker, begin, end, width, dy, dy0, lddy, y, y0, ldy, dx, dx0, lddx):
    one = y.dtype.type(1)
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b, c = dy0 + row * lddy + column, y0 + row * ldy + column, dx0 + row * lddx + column
        for i in range(count):
            dx[c + i] = dy[a + i] * (one - y[b + i] * y[b + i])
        begin += count


@kernel
def scale_kernel(worker, begin, end, width, x, x0, ldx, y, y0, ldy, factor):
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b = x0 + row * ldx + column, y0 + row * ldy + column
        for i in range(count):
            y[b + i] = x[a + i] * factor
        begin += count


@kernel
def add_kernel(worker, begin, end, width, x, x0, ldx, z, z0, ldz, y, y0, ldy):
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b, c = x0 + row * ldx + column, z0 + row * ldz + column, y0 + row * ldy + column
        for i in range(count):
            y[c + i] = x[a + i] + z[b + i]
        begin += count


@kernel
def copy_kernel(worker, begin, end, width, x, x0, ldx, y, y0, ldy):
    while begin < end:
        row, column = divmod(begin, width)
        count = min(width - column, end - begin)
        a, b = x0 + row * ldx + column, y0 + row * ldy + column
        for i in range(count):
            y[b + i] = x[a + i]
        begin += count


def relu(pool: Pool, x: Floats) -> Floats:
    """y = max(x, 0)."""
    y = np.empty_like(x)
    pool.run(relu_kernel, x.size, x.size, x.reshape(-1), 0, 0, y.reshape(-1), 0, 0, grain=GRAIN)
    return y


def relu_backward(pool: Pool, dy: Floats, y: Floats) -> Floats:
    """dx = dy where the unit was on (y > 0), else 0."""
    dx = np.empty_like(y)
    flat = dy.reshape(-1), 0, 0, y.reshape(-1), 0, 0, dx.reshape(-1), 0, 0
    pool.run(relu_backward_kernel, y.size, y.size, *flat, grain=GRAIN)
    return dx


def tanh(pool: Pool, x: Floats) -> Floats:
    """y = tanh x."""
    y = np.empty_like(x)
    pool.run(tanh_kernel_of(x.dtype), x.size, x.size, x.reshape(-1), 0, 0, y.reshape(-1), 0, 0, grain=GRAIN)
    return y


def tanh_backward(pool: Pool, dy: Floats, y: Floats) -> Floats:
    """dx = dy · (1 − y²)."""
    dx = np.empty_like(y)
    flat = dy.reshape(-1), 0, 0, y.reshape(-1), 0, 0, dx.reshape(-1), 0, 0
    pool.run(tanh_backward_kernel, y.size, y.size, *flat, grain=GRAIN)
    return dx


def scale(pool: Pool, x: Floats, factor: float) -> Floats:
    """factor · x."""
    y = np.empty_like(x)
    pool.run(scale_kernel, x.size, x.size, x.reshape(-1), 0, 0, y.reshape(-1), 0, 0, x.dtype.type(factor), grain=GRAIN)
    return y


def add(pool: Pool, x: Floats, y: Floats) -> Floats:
    """x + y."""
    z = np.empty_like(x)
    flat = x.reshape(-1), 0, 0, y.reshape(-1), 0, 0, z.reshape(-1), 0, 0
    pool.run(add_kernel, x.size, x.size, *flat, grain=GRAIN)
    return z
