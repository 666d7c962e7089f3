"""The Numba backend: the table of its operations, each a plain function in the file of its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

from minialex import host
from minialex.backend import Array
from minialex.program import CompiledStep, Program
from minialex_numba.compiler import step
from minialex_numba.ops import augment as augmentation
from minialex_numba.ops import conv2d as convolution
from minialex_numba.ops import dropout as dropping
from minialex_numba.ops import elementwise
from minialex_numba.ops import linear as full
from minialex_numba.ops import local_response_norm as channels
from minialex_numba.ops import max_pool2d as pooling
from minialex_numba.ops import sgd_update as descent
from minialex_numba.ops import softmax_cross_entropy as cost
from minialex_numba.ops import spatial_response_norm as places
from minialex_numba.runtime.threads import threads as threads_for


class operation(host.operation):  # noqa: N801 - used as a decorator
    """Turn a function ``(threads, arrays …, numbers …)`` into a backend's method of the same other parameters."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        signature = inspect.signature(function)
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
        if instance is None:
            return self
        bound = host.operation(partial(self.function, instance.threads))
        bound.name, bound.rule = self.name, self.rule
        return bound.call


@final
class NumbaBackend:
    """All cores of this machine, for float32 and float64: kernels that Numba compiles at their first use.

    Its devices ``cpu:0`` and ``cpu:1`` are pretend devices (see `minialex.host`): the same memory under two tags.

    Args:
        threads: how many threads compute, by default one a core; results are the same bits for any number
    """

    name = "numba"

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads_for(threads)

    @property
    def devices(self) -> tuple[str, ...]:
        """The two pretend devices."""
        return host.DEVICES

    to_device = staticmethod(host.to_device)
    to_numpy = staticmethod(host.to_numpy)
    copy_to = staticmethod(host.copy_to)
    zeros = staticmethod(host.zeros)
    all_reduce = staticmethod(host.all_reduce)
    memory_in_use = staticmethod(host.memory_in_use)
    reshape = host.operation(host.reshape)
    concat = host.operation(host.concat)
    split = host.operation(host.split)
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

    def compile_step(self, program: Program, bindings: Mapping[str, Array]) -> CompiledStep | None:
        """The whole step on buffers that are allocated once (see `minialex_numba.compiler`); it holds `nbytes` of them."""
        return step.compile_step(self.threads, program, bindings)
