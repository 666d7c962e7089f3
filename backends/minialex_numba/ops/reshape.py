"""From images to features and back, and arrays of zeros."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minialex.backend.program import Value
from minialex_numba.runtime.buffers import Bind, Buffers, Task, Unsupported, row_width
from minialex_numba.runtime.layout import channels_first_kernel, channels_last_kernel, items


def reshape(on: Buffers, results: Sequence[Value], x: Value, shape: tuple[int, ...]) -> Bind:
    """The same numbers as rows of features [N, C · H · W] instead of images [N,C,H,W], or vice versa."""
    if {len(x.shape), len(shape)} != {2, 4}:
        raise Unsupported(f"reshape {x.shape} to {shape}")
    N, C, *places = max(x.shape, shape, key=len)
    kernel = channels_first_kernel if len(x.shape) == 4 else channels_last_kernel
    return on.launch(kernel, items(N, math.prod(places)), x, results[0], C, math.prod(places))


def zeros(on: Buffers, results: Sequence[Value], *_: Any) -> Bind:
    """An array of zeros."""

    def bind() -> Task:
        flat, first, distance = on.rows(results[0])
        rows = flat.reshape(-1, distance)[:, first : first + row_width(results[0])]
        return lambda feed: rows.fill(0)

    return bind
