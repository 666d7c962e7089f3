"""Elementwise operations: relu, tanh, scale, add.

Every kernel works on rows of `width` numbers; its items are the numbers, row after row.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, row_count, row_width
from minialex_numba.runtime.jit import kernel, part
from minialex_numba.runtime.threads import Kernel

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


N, D = _lambert(13)  # all positive, so nothing cancels: relative error below 5.1e-8 up to LARGEST
LARGEST = 9.2  # from 9.02 on, the float32 nearest to tanh x is 1


@part(inline="always")
def span(begin, end, width):
    """The items from `begin` on that lie in one row: the row, the first item's place in it, and their count."""
    row, first = divmod(begin, width)
    return row, first, min(width - first, end - begin)


@kernel
def relu_kernel(worker, begin, end, width, x, y):
    (x, x0, ldx), (y, y0, ldy) = x, y
    zero = x.dtype.type(0)
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b = x0 + row * ldx + first, y0 + row * ldy + first
        for i in range(count):
            value = x[a + i]
            y[b + i] = zero if value <= zero else value  # NaN stays
        begin += count


@kernel
def relu_backward_kernel(worker, begin, end, width, dy, y, dx):
    (dy, dy0, lddy), (y, y0, ldy), (dx, dx0, lddx) = dy, y, dx
    zero = y.dtype.type(0)
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b, c = dy0 + row * lddy + first, y0 + row * ldy + first, dx0 + row * lddx + first
        for i in range(count):
            dx[c + i] = dy[a + i] if y[b + i] > zero else zero
        begin += count


@kernel
def tanh_kernel(worker, begin, end, width, x, y):
    (x, x0, ldx), (y, y0, ldy) = x, y
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b = x0 + row * ldx + first, y0 + row * ldy + first
        for i in range(count):
            y[b + i] = np.tanh(x[a + i])
        begin += count


@kernel
def tanh32_kernel(worker, begin, end, width, x, y):
    # a library's tanh is called number by number; this is plain arithmetic in float64, vectorised
    (x, x0, ldx), (y, y0, ldy) = x, y
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b = x0 + row * ldx + first, y0 + row * ldy + first
        for i in range(count):
            v = np.float64(x[a + i])
            v = np.float64(LARGEST) if v > LARGEST else v  # NaN stays
            v = np.float64(-LARGEST) if v < -LARGEST else v
            z = v * v
            n = N[0] + z * (N[1] + z * (N[2] + z * (N[3] + z * (N[4] + z * (N[5] + z * N[6])))))
            d = D[0] + z * (D[1] + z * (D[2] + z * (D[3] + z * (D[4] + z * (D[5] + z * D[6])))))
            y[b + i] = np.float32(v * n / d)
        begin += count


@kernel
def tanh_backward_kernel(worker, begin, end, width, dy, y, dx):
    (dy, dy0, lddy), (y, y0, ldy), (dx, dx0, lddx) = dy, y, dx
    one = y.dtype.type(1)
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b, c = dy0 + row * lddy + first, y0 + row * ldy + first, dx0 + row * lddx + first
        for i in range(count):
            dx[c + i] = dy[a + i] * (one - y[b + i] * y[b + i])
        begin += count


@kernel
def scale_kernel(worker, begin, end, width, x, factor, y):
    (x, x0, ldx), (y, y0, ldy) = x, y
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b = x0 + row * ldx + first, y0 + row * ldy + first
        for i in range(count):
            y[b + i] = x[a + i] * factor
        begin += count


@kernel
def add_kernel(worker, begin, end, width, x, z, y):
    (x, x0, ldx), (z, z0, ldz), (y, y0, ldy) = x, z, y
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b, c = x0 + row * ldx + first, z0 + row * ldz + first, y0 + row * ldy + first
        for i in range(count):
            y[c + i] = x[a + i] + z[b + i]
        begin += count


@kernel
def copy_kernel(worker, begin, end, width, x, y):
    (x, x0, ldx), (y, y0, ldy) = x, y
    while begin < end:
        row, first, count = span(begin, end, width)
        a, b = x0 + row * ldx + first, y0 + row * ldy + first
        for i in range(count):
            y[b + i] = x[a + i]
        begin += count


def node(kernel: Kernel) -> Callable[..., Bind]:
    """The node of an elementwise kernel, from arrays and numbers to one array."""

    def elementwise(on: Buffers, results: Sequence[Value], x: Value, *arguments: Any, **numbers: float) -> Bind:
        given = [a if isinstance(a, Value) else on.number(a) for a in (x, *arguments, *numbers.values())]
        return on.launch(kernel, row_count(x) * row_width(x), row_width(x), *given, *results, grain=GRAIN)

    return elementwise


relu = node(relu_kernel)
relu_backward = node(relu_backward_kernel)
tanh_backward = node(tanh_backward_kernel)
scale = node(scale_kernel)
add = node(add_kernel)
copy = node(copy_kernel)


def tanh(on: Buffers, results: Sequence[Value], x: Value) -> Bind:
    """y = tanh x."""
    return node(tanh32_kernel if on.dtype == np.float32 else tanh_kernel)(on, results, x)
