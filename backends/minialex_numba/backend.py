"""The Numba backend: the table of its operations, each a plain function in the file of its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from minialex.backend import pretend
from minialex.backend.arrays import Array
from minialex.backend.program import ArrayName, CompiledStep, Program
from minialex_numba import augment as augmentation
from minialex_numba import conv2d as convolution
from minialex_numba import dropout as dropping
from minialex_numba import elementwise
from minialex_numba import linear as full
from minialex_numba import local_response_norm as channels
from minialex_numba import max_pool2d as pooling
from minialex_numba import pool as threading
from minialex_numba import sgd_update as descent
from minialex_numba import softmax_cross_entropy as cost
from minialex_numba import spatial_response_norm as places
from minialex_numba import step as steps
from minialex_numba.operation import operation


@final
class NumbaBackend:
    """All cores of this machine, for float32 and float64: kernels that Numba compiles at their first use.

    Its devices ``cpu:0`` and ``cpu:1`` are pretend devices (see `minialex.backend.pretend`): the same memory under two tags.

    Args:
        threads: how many threads compute, by default one a core; results are the same bits for any number
    """

    name = "numba"
    priority = 10
    keeps_kernels = True

    def __init__(self, *, threads: int | None = None) -> None:
        self.pool = threading.pool(threads)

    @property
    def devices(self) -> tuple[str, ...]:
        """The two pretend devices."""
        return pretend.DEVICES

    to_device = staticmethod(pretend.to_device)
    to_numpy = staticmethod(pretend.to_numpy)
    copy_to = staticmethod(pretend.copy_to)
    zeros = staticmethod(pretend.zeros)
    all_reduce = staticmethod(pretend.all_reduce)
    memory_in_use = staticmethod(pretend.memory_in_use)
    apply = pretend.apply
    reshape = pretend.operation(pretend.reshape)
    concat = pretend.operation(pretend.concat)
    split = pretend.operation(pretend.split)
    add = operation(elementwise.add)
    scale = operation(elementwise.scale)

    def synchronize(self, device: str) -> None:
        """Nothing to wait for: operations return when they are done."""

    conv2d = operation(convolution.conv2d)
    conv2d_backward = operation(convolution.conv2d_backward)
    linear = operation(full.linear)
    linear_backward = operation(full.linear_backward)
    relu = operation(elementwise.relu)
    relu_backward = operation(elementwise.relu_backward)
    tanh = operation(elementwise.tanh)
    tanh_backward = operation(elementwise.tanh_backward)
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
    sgd_update = operation(descent.sgd_update)
    augment = operation(augmentation.augment)

    def compile_step(self, program: Program, bindings: Mapping[ArrayName, Array]) -> CompiledStep | None:
        """The whole step on buffers that are allocated once (see `minialex_numba.step`); it holds `nbytes` of them."""
        return steps.compile_step(self.pool, program, bindings)
