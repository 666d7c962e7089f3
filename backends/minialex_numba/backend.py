"""The Numba backend: a table of its operations, each a node in the file named after it (see `minialex_numba.ops`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, final

from minialex.backend import pretend
from minialex.backend.arrays import Array
from minialex.backend.operations import layers_with_own, notice
from minialex.backend.program import ArrayName, CompiledStep, Program
from minialex.backend.protocol import Backend
from minialex_numba.compiler import step
from minialex_numba.ops import NODES
from minialex_numba.runtime.alone import run_alone
from minialex_numba.runtime.threads import threads as threads_for


class operation(pretend.operation):  # noqa: N801 - as its base class
    """A method of the backend, with the protocol's parameters, that runs the node of the same name."""

    def __init__(self, *, flat: bool = False) -> None:
        self.flat = flat

    def __set_name__(self, owner: type, name: str) -> None:
        super().__set_name__(owner, name)
        method = getattr(Backend, name)
        self.__doc__ = method.__doc__
        parameters = list(inspect.signature(method).parameters.values())[1:]
        self.__signature__ = inspect.Signature(parameters)

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
        if instance is None:
            return self
        bound = pretend.operation(partial(run_alone, instance.threads, NODES[self.name], self.rule, self.flat))
        bound.name, bound.rule = self.name, self.rule
        return bound.call


@final
class NumbaBackend:
    """Runs on all cores of this machine, in float32 and float64, with kernels that Numba compiles on first use.

    Its devices ``cpu:0`` and ``cpu:1`` are pretend ones: one memory under two names (see `minialex.backend.pretend`).

    Args:
        threads: number of threads, by default one per core; results are bitwise the same for any number
    """

    name = "numba"
    priority = 10
    keeps_kernels = True

    def __init__(self, *, threads: int | None = None) -> None:
        self.threads = threads_for(threads)

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
    reshape = pretend.operation(pretend.reshape)
    concat = pretend.operation(pretend.concat)
    split = pretend.operation(pretend.split)

    def synchronize(self, device: str) -> None:
        """Nothing to wait for: operations return when they are done."""

    add = operation(flat=True)
    scale = operation(flat=True)
    conv2d = operation()
    conv2d_backward = operation()
    linear = operation()
    linear_backward = operation()
    relu = operation(flat=True)
    relu_backward = operation(flat=True)
    tanh = operation(flat=True)
    tanh_backward = operation(flat=True)
    max_pool2d = operation()
    max_pool2d_backward = operation()
    local_response_norm = operation()
    local_response_norm_backward = operation()
    spatial_response_norm = operation()
    spatial_response_norm_backward = operation()
    dropout = operation(flat=True)
    dropout_backward = operation(flat=True)
    softmax_cross_entropy = operation()
    softmax_cross_entropy_backward = operation()
    scale_by_trust_ratio = operation()
    sgd_update = operation()
    augment = operation()

    def compile_step(self, program: Program, bindings: Mapping[ArrayName, Array]) -> CompiledStep | None:
        """Compile the whole step, on `nbytes` bytes of buffers allocated once (see `minialex_numba.compiler`)."""
        made = step.compile_step(self.threads, program, bindings)
        if layers := layers_with_own(program):
            walked = "a step with your own operations is not compiled: every operation runs separately"
            notice("computes in NumPy, on one core, inside the compiled step" if made else walked, *layers)
        return made
