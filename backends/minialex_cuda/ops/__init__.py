"""The protocol's operations, each a plain function ``(place, arrays …, numbers …)`` in the file named after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minialex_cuda.ops.augment import augment
from minialex_cuda.ops.channels import concat, reshape, split
from minialex_cuda.ops.conv2d import conv2d, conv2d_backward
from minialex_cuda.ops.dropout import dropout, dropout_backward
from minialex_cuda.ops.elementwise import add, relu, relu_backward, scale, tanh, tanh_backward
from minialex_cuda.ops.linear import linear, linear_backward
from minialex_cuda.ops.max_pool2d import max_pool2d, max_pool2d_backward
from minialex_cuda.ops.response_norm import (
    local_response_norm,
    local_response_norm_backward,
    spatial_response_norm,
    spatial_response_norm_backward,
)
from minialex_cuda.ops.scale_by_trust_ratio import scale_by_trust_ratio
from minialex_cuda.ops.sgd_update import sgd_update
from minialex_cuda.ops.softmax_cross_entropy import softmax_cross_entropy, softmax_cross_entropy_backward

OPERATIONS: dict[str, Callable[..., Any]] = {
    "reshape": reshape,
    "concat": concat,
    "split": split,
    "add": add,
    "scale": scale,
    "conv2d": conv2d,
    "conv2d_backward": conv2d_backward,
    "linear": linear,
    "linear_backward": linear_backward,
    "relu": relu,
    "relu_backward": relu_backward,
    "tanh": tanh,
    "tanh_backward": tanh_backward,
    "max_pool2d": max_pool2d,
    "max_pool2d_backward": max_pool2d_backward,
    "local_response_norm": local_response_norm,
    "local_response_norm_backward": local_response_norm_backward,
    "spatial_response_norm": spatial_response_norm,
    "spatial_response_norm_backward": spatial_response_norm_backward,
    "dropout": dropout,
    "dropout_backward": dropout_backward,
    "softmax_cross_entropy": softmax_cross_entropy,
    "softmax_cross_entropy_backward": softmax_cross_entropy_backward,
    "scale_by_trust_ratio": scale_by_trust_ratio,
    "sgd_update": sgd_update,
    "augment": augment,
}
