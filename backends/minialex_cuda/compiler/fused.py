"""Operations that do the work of several, where nobody else needs what is between them; `fusion` finds where.

Normalisation with its pooling is in `minialex_cuda.ops.norm_pool_words`, since only maps in words have it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from minialex_cuda.ops.conv2d import conv2d, conv2d_backward, conv2d_dw, conv2d_dx
from minialex_cuda.ops.linear import linear, linear_dw, linear_dx
from minialex_cuda.ops.max_pool2d import max_pool2d_backward

OPERATIONS: dict[str, Callable[..., Any]] = {
    "conv2d_relu": partial(conv2d, rectify=True),
    "linear_relu": partial(linear, rectify=True),
    "relu_conv2d_backward": conv2d_backward,  # the ReLU's result is the last argument
    "relu_conv2d_dx": conv2d_dx,
    "relu_conv2d_dw": conv2d_dw,
    "conv2d_dx": conv2d_dx,
    "conv2d_dw": conv2d_dw,
    "linear_dx": linear_dx,
    "linear_dw": linear_dw,
    "max_pool2d_relu_backward": partial(max_pool2d_backward, rectify=True),
}
"""What `minialex_cuda.compiler.fusion` puts into a program, beside the protocol's operations."""
