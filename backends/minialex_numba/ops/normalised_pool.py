"""Local response normalisation followed by max-pooling, in one pass over memory each way: an operation of compiled steps.

Forward, an image's normalised rows live in scratch memory for as long as a window needs them. Backward, a row's
gradient of the pooling goes through the normalisation while it is in the cache, and through the ReLU before it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minialex.backend.program import Value
from minialex_numba.ops.local_response_norm import BLOCK, Norm, denormalise, normalise, scratch_size
from minialex_numba.ops.max_pool2d import Windows, gather_windows, pool_row, windows_of, winner_dtype
from minialex_numba.runtime.buffers import Bind, Buffers, Compact
from minialex_numba.runtime.jit import kernel
from minialex_numba.runtime.layout import empty
from minialex_numba.runtime.tiles import up


def forward_room(C: int, W: int, window: int, size: int, dtype: Any) -> int:
    """Numbers of scratch memory for each thread: rows of one window, and what normalising takes."""
    return up(window * W * C, 16) + scratch_size(C, size, dtype)


def backward_room(C: int, size: int, dtype: Any) -> int:
    """Numbers of scratch memory for each thread: gradients of a block of places, and what normalising takes."""
    return up(BLOCK * C, 16) + scratch_size(C, size, dtype)


@kernel
def forward_kernel(worker, begin, end, parts, x, windows, norm, y, winner, scratch, room):
    """Items are (image, part of its rows of windows)."""
    (x, x0, ldx), (y, y0, ldy), g = x, y, Windows(*windows)
    C, H, W = g.C, g.H, g.W
    rows = worker * room
    own = rows + (g.size * W * C + 15) // 16 * 16
    for item in range(begin, end):
        n, part = divmod(item, parts)
        done = 0
        for p in range(part * g.P // parts, (part + 1) * g.P // parts):
            top = p * g.stride
            bottom = min(top + g.size, H)
            for i in range(max(top, done), bottom):
                for j in range(0, W, BLOCK):
                    normalise(
                        (x, x0 + ((n * H + i) * W + j) * ldx, ldx), C, min(BLOCK, W - j), norm,
                        (scratch, rows + ((i % g.size) * W + j) * C, C), scratch, 0, False,
                        scratch, own, room - (own - rows),
                    )  # fmt: skip
            done = bottom
            window = (n * g.P + p) * g.Q
            pool_row(
                (scratch, rows, C), g.size, top, bottom - top, windows, (y, y0 + window * ldy, ldy), winner, window * C
            )


@kernel
def backward_kernel(worker, begin, end, dy, winner, x, relu, windows, norm, dx, scratch, room):
    """Items are rows of x; the windows' winners get their gradient."""
    (dy, dy0, lddy), (x, x0, ldx), (dx, dx0, lddx), g = dy, x, dx, Windows(*windows)
    slopes = worker * room
    own = slopes + (BLOCK * g.C + 15) // 16 * 16
    for item in range(begin, end):
        n, i = divmod(item, g.H)
        window = n * g.P * g.Q
        for j in range(0, g.W, BLOCK):
            last = min(j + BLOCK, g.W)
            source = (x, x0 + (item * g.W + j) * ldx, ldx)
            pooled = (scratch, slopes, g.C)
            gather_windows(
                (dy, dy0 + window * lddy, lddy), winner, window * g.C, source, source, False, False, i, j, last, windows,
                pooled,
            )  # fmt: skip
            denormalise(
                pooled, source, x, 0, False, g.C, last - j, norm, relu, (dx, dx0 + (item * g.W + j) * lddx, lddx),
                scratch, own, room - (own - slopes),
            )  # fmt: skip


def normalised_pool(
    on: Buffers, results: Sequence[Value | None], x: Value, *, norm: Norm, size: int, stride: int, ceil: bool
) -> Bind:
    """Results are y and, if the way back reads them, the winners."""
    del ceil
    y, *winners = results
    assert y is not None
    winner = Compact(winners[0]) if winners and winners[0] else empty(0, winner_dtype(size))
    (N, C, _, W), windows = x.shape, windows_of(x.shape, y.shape, size, stride)
    room = forward_room(C, W, size, norm.size, on.dtype)
    parts = max(1, min(windows.P, -(-4 * on.threads.count // N)))
    scratch = on.scratch(on.threads.count * room)
    return on.launch(forward_kernel, N * parts, parts, x, windows, norm.of(on.dtype), y, winner, scratch, room)


def normalised_pool_backward(
    on: Buffers, results: Sequence[Value], dy: Value, winner: Value, x: Value, *, norm: Norm, size: int, stride: int,
    relu: bool = False,
) -> Bind:  # fmt: skip
    """With `relu` the gradient of the ReLU that made x is taken, too."""
    N, C, H, _ = x.shape
    room = backward_room(C, norm.size, on.dtype)
    windows, scratch = windows_of(x.shape, dy.shape, size, stride), on.scratch(on.threads.count * room)
    arguments = dy, Compact(winner), x, relu, windows, norm.of(on.dtype), results[0], scratch, room
    return on.launch(backward_kernel, N * H, *arguments)
