"""Local response normalisation followed by max-pooling, in one pass over memory each way.

Forward, an image's normalised rows live in scratch memory for as long as a window needs them. Backward, a row's
gradient of the pooling goes through the normalisation while it is in the cache, and through the ReLU before it.
"""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

from typing import Any

from minialex_numba.kernels import kernel
from minialex_numba.local_response_norm import BLOCK, denormalise, normalise, scratch_size
from minialex_numba.max_pool2d import gather_windows, pool_row
from minialex_numba.products import up


def forward_room(C: int, W: int, window: int, size: int, dtype: Any) -> int:
    """Numbers of scratch memory for each thread: rows of one window, and what normalising takes."""
    return up(window * W * C, 16) + scratch_size(C, size, dtype)


def backward_room(C: int, size: int, dtype: Any) -> int:
    """Numbers of scratch memory for each thread: gradients of a block of places, and what normalising takes."""
    return up(BLOCK * C, 16) + scratch_size(C, size, dtype)


@kernel
def forward_kernel(
    worker, begin, end, parts, x, x0, ldx, C, H, W, window, stride, P, Q, size, k, alpha, beta, y, y0, ldy,
    winner, nobody, keep, scratch, room
):  # fmt: skip
    """Items are (image, part of its rows of windows)."""
    rows = worker * room
    own = rows + (window * W * C + 15) // 16 * 16
    for item in range(begin, end):
        n, part = divmod(item, parts)
        done = 0
        for p in range(part * P // parts, (part + 1) * P // parts):
            top = p * stride
            bottom = min(top + window, H)
            for i in range(max(top, done), bottom):
                for j in range(0, W, BLOCK):
                    normalise(
                        x, x0 + ((n * H + i) * W + j) * ldx, ldx, C, min(BLOCK, W - j), size, k, alpha, beta,
                        scratch, rows + ((i % window) * W + j) * C, C, scratch, 0, False,
                        scratch, own, room - (own - rows),
                    )  # fmt: skip
            done = bottom
            pool_row(
                scratch, rows, C, window, C, W, top, bottom - top, window, stride, Q, y, y0 + (n * P + p) * Q * ldy, ldy,
                winner, (n * P + p) * Q * C, nobody, keep,
            )  # fmt: skip


@kernel
def backward_kernel(
    worker, begin, end, dy, dy0, lddy, winner, x, x0, ldx, relu, C, H, W, window, stride, P, Q, size, k, alpha, beta,
    dx, dx0, lddx, scratch, room
):  # fmt: skip
    """Items are rows of x; the windows' winners get their gradient."""
    slopes = worker * room
    own = slopes + (BLOCK * C + 15) // 16 * 16
    for item in range(begin, end):
        n, i = divmod(item, H)
        for j in range(0, W, BLOCK):
            last = min(j + BLOCK, W)
            a, e = x0 + (item * W + j) * ldx, dx0 + (item * W + j) * lddx
            gather_windows(
                dy, dy0 + n * P * Q * lddy, lddy, winner, n * P * Q * C, x, a, ldx, x, a, ldx, False, False, C, i, j, last,
                window, stride, P, Q, scratch, slopes, C,
            )  # fmt: skip
            denormalise(
                scratch, slopes, C, x, a, ldx, x, 0, False, C, last - j, size, k, alpha, beta, relu, dx, e, lddx,
                scratch, own, room - (own - slopes),
            )  # fmt: skip
