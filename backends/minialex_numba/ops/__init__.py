"""The operations: each is one node function in the file of its name (see `minialex_numba.runtime.buffers`)."""

from collections.abc import Callable

from minialex_numba.ops import (
    augment,
    conv2d,
    dropout,
    elementwise,
    linear,
    local_response_norm,
    max_pool2d,
    normalised_pool,
    over_ranks,
    reshape,
    scale_by_trust_ratio,
    sgd_update,
    softmax_cross_entropy,
    spatial_response_norm,
    sum_over_ranks,
)
from minialex_numba.runtime.buffers import Bind

NODES: dict[str, Callable[..., Bind]] = {
    "add": elementwise.add,
    "augment": augment.augment,
    "conv2d": conv2d.conv2d,
    "conv2d_backward": conv2d.conv2d_backward,
    "copy": elementwise.copy,
    "dropout": dropout.dropout,
    "dropout_backward": dropout.dropout_backward,
    "gather_over_ranks": over_ranks.gather_over_ranks,
    "linear": linear.linear,
    "linear_backward": linear.linear_backward,
    "local_response_norm": local_response_norm.local_response_norm,
    "local_response_norm_backward": local_response_norm.local_response_norm_backward,
    "max_pool2d": max_pool2d.max_pool2d,
    "max_pool2d_backward": max_pool2d.max_pool2d_backward,
    "normalised_pool": normalised_pool.normalised_pool,
    "normalised_pool_backward": normalised_pool.normalised_pool_backward,
    "relu": elementwise.relu,
    "relu_backward": elementwise.relu_backward,
    "reshape": reshape.reshape,
    "scale": elementwise.scale,
    "scale_by_trust_ratio": scale_by_trust_ratio.scale_by_trust_ratio,
    "scatter_over_ranks": over_ranks.scatter_over_ranks,
    "sgd_update": sgd_update.sgd_update,
    "softmax_cross_entropy": softmax_cross_entropy.softmax_cross_entropy,
    "softmax_cross_entropy_backward": softmax_cross_entropy.softmax_cross_entropy_backward,
    "sum_over_ranks": sum_over_ranks.sum_over_ranks,
    "await_sums": sum_over_ranks.await_sums,
    "spatial_response_norm": spatial_response_norm.spatial_response_norm,
    "spatial_response_norm_backward": spatial_response_norm.spatial_response_norm_backward,
    "swap_over_ranks": over_ranks.swap_over_ranks,
    "tanh": elementwise.tanh,
    "tanh_backward": elementwise.tanh_backward,
    "zeros": reshape.zeros,
}
"""The node of each operation by name: the protocol's operations, and those that exist only in compiled steps."""
