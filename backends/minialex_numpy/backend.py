"""The NumPy backend: a table of its operations, each a plain function in the file named after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from minialex.backend import pretend
from minialex.backend.arrays import Array
from minialex.backend.pretend import operation
from minialex.backend.program import CompiledStep, Program
from minialex_numpy import augment as augmentation
from minialex_numpy import conv2d as convolution
from minialex_numpy import dropout as dropping
from minialex_numpy import linear as full
from minialex_numpy import local_response_norm as channels
from minialex_numpy import max_pool2d as pooling
from minialex_numpy import relu as rectifier
from minialex_numpy import scale_by_trust_ratio as layerwise
from minialex_numpy import sgd_update as descent
from minialex_numpy import softmax_cross_entropy as cost
from minialex_numpy import spatial_response_norm as places
from minialex_numpy import tanh as saturating


@final
class NumpyBackend:
    """The reference: it defines every operation, in pure NumPy, for float32 and float64.

    Its devices ``cpu:0`` and ``cpu:1`` are pretend devices (see `minialex.backend.pretend`).
    """

    name = "numpy"
    priority = 0

    @property
    def devices(self) -> tuple[str, ...]:
        """The two pretend devices."""
        return pretend.DEVICES

    to_device = staticmethod(pretend.to_device)
    to_numpy = staticmethod(pretend.to_numpy)
    copy_to = staticmethod(pretend.copy_to)
    zeros = staticmethod(pretend.zeros)
    memory_in_use = staticmethod(pretend.memory_in_use)
    apply = pretend.apply
    reshape = operation(pretend.reshape)
    concat = operation(pretend.concat)
    split = operation(pretend.split)
    add = operation(lambda x, y: x + y)
    scale = operation(lambda x, factor: x * factor)

    def synchronize(self, device: str) -> None:
        """There is nothing to wait for: NumPy returns when it is done."""

    conv2d = operation(convolution.conv2d)
    conv2d_backward = operation(convolution.conv2d_backward)
    linear = operation(full.linear)
    linear_backward = operation(full.linear_backward)
    relu = operation(rectifier.relu)
    relu_backward = operation(rectifier.relu_backward)
    tanh = operation(saturating.tanh)
    tanh_backward = operation(saturating.tanh_backward)
    max_pool2d = operation(pooling.max_pool2d)
    max_pool2d_backward = operation(pooling.max_pool2d_backward)
    local_response_norm = operation(channels.local_response_norm)
    local_response_norm_backward = operation(channels.local_response_norm_backward)
    spatial_response_norm = operation(places.spatial_response_norm)
    spatial_response_norm_backward = operation(places.spatial_response_norm_backward)
    dropout = operation(dropping.dropout)
    dropout_backward = operation(dropping.dropout_backward)
    softmax_cross_entropy = operation(cost.softmax_cross_entropy)
    softmax_cross_entropy_backward = operation(cost.softmax_cross_entropy_backward)
    scale_by_trust_ratio = operation(layerwise.scale_by_trust_ratio)
    sgd_update = operation(descent.sgd_update)
    augment = operation(augmentation.augment)

    def compile_step(self, program: Program, bindings: Mapping[str, Array]) -> CompiledStep | None:
        """None: the reference runs the operations one by one."""
        return None
