"""Convolutions by cuDNN, through its Python frontend: no patches in memory. Optional; not yet run on a device.

float32 and tf32 convolve N C H W as it is; bfloat16 takes operands with the channels last (N H W C, and K R S C for
kernels), which its matrix units want, and gives float32. Plans that are not deterministic are never taken; nor, in
float32, those that round operands or trade accuracy for speed. That every layer of the paper has such a plan is tested
without a device (`tests/cuda/test_cudnn.py`).
"""

from __future__ import annotations

import logging
from typing import Any

from minialex_cuda.runtime.protocol import Convolution

INSTALL = "pip install 'minialex[cudnn]'"


def frontend() -> Any | None:
    """The module ``cudnn``, or None, with a notice, where it is not installed."""
    try:
        import cudnn
    except (ImportError, OSError) as error:
        logging.getLogger("minialex").warning(
            "cuDNN's Python frontend does not load (%s): convolutions go by matrices of patches, which is slower; "
            "install it with: %s",
            error,
            INSTALL,
        )
        return None
    return cudnn


def strides(dims: tuple[int, ...], last: bool) -> list[int]:
    """Distances between numbers of [N,C,H,W] in memory, with the channels last or in that order."""
    _, C, H, W = dims
    return [C * H * W, 1, W * C, C] if last else [C * H * W, H * W, W, 1]


class Plan:
    """A convolution that cuDNN has planned.

    Args:
        cudnn: the module
        convolution: what is computed
        where: ``handle=…`` of a device, or ``device_property=…`` to plan for one that is not here

    Raises:
        cudnn.cudnnGraphNotSupportedError, RuntimeError: If no plan fits.
    """

    def __init__(self, cudnn: Any, convolution: Convolution, **where: Any) -> None:
        kinds, notes, it = cudnn.data_type, cudnn.numerical_note, convolution
        last = it.precision == "bfloat16"
        graph = cudnn.pygraph(
            io_data_type=kinds.BFLOAT16 if last else kinds.FLOAT,
            intermediate_data_type=kinds.FLOAT,
            compute_data_type=kinds.FLOAT,
            **where,
        )
        image, kernels, maps = (it.N, it.C, it.H, it.W), (it.K, it.C, it.R, it.S), (it.N, it.K, it.P, it.Q)
        (above, below), (left, right) = it.padding
        options = {
            "pre_padding": [above, left],
            "post_padding": [below, right],
            "stride": [it.stride] * 2,
            "dilation": [1, 1],
        }

        def tensor(name: str, dims: tuple[int, ...]) -> Any:
            kind = kinds.BFLOAT16 if last else kinds.FLOAT
            return graph.tensor(name=name, dim=list(dims), stride=strides(dims, last), data_type=kind)

        if it.kind == "fprop":
            self.first, self.second, dims = tensor("x", image), tensor("w", kernels), maps
            self.out = graph.conv_fprop(image=self.first, weight=self.second, **options)
        elif it.kind == "dgrad":
            self.first, self.second, dims = tensor("dy", maps), tensor("w", kernels), image
            self.out = graph.conv_dgrad(loss=self.first, filter=self.second, **options)
        else:
            self.first, self.second, dims = tensor("dy", maps), tensor("x", image), kernels
            self.out = graph.conv_wgrad(image=self.second, loss=self.first, **options)
        self.out.set_output(True).set_dim(list(dims)).set_stride(strides(dims, last)).set_data_type(kinds.FLOAT)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        unwanted = [notes.NONDETERMINISTIC, notes.WINOGRAD, notes.FFT]
        graph.deselect_numeric_notes([*unwanted, notes.TENSOR_CORE] if it.precision == "float32" else unwanted)
        graph.check_support()
        graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
        self.graph = graph
        self.workspace = int(graph.get_workspace_size())


class Convolutions:
    """cuDNN on one device: its plans, each made once. Made while the device is the current one."""

    def __init__(self) -> None:
        self._cudnn = frontend()
        self._handle = None if self._cudnn is None else self._cudnn.create_handle()
        self._plans: dict[Convolution, Plan | None] = {}

    def plan(self, convolution: Convolution) -> Plan | None:
        """The plan, or None where there is no frontend or no plan that fits."""
        if self._cudnn is None:
            return None
        if convolution not in self._plans:
            try:
                self._plans[convolution] = Plan(self._cudnn, convolution, handle=self._handle)
            except (self._cudnn.cudnnGraphNotSupportedError, RuntimeError):
                self._plans[convolution] = None
        return self._plans[convolution]

    def run(self, stream: int, convolution: Convolution, a: int, b: int, out: int, workspace: int) -> None:
        """A planned convolution on a stream, at these addresses."""
        plan = self.plan(convolution)
        assert plan is not None
        assert self._cudnn is not None
        self._cudnn.set_stream(handle=self._handle, stream=stream)
        plan.graph.execute({plan.first: a, plan.second: b, plan.out: out}, workspace, handle=self._handle)
