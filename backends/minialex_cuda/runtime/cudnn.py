"""Convolutions by cuDNN, through its Python frontend: no patches in memory. Optional.

float32 and tf32 convolve N C H W as it is; bfloat16 takes operands with the channels last (N H W C, and K R S C for
kernels), which its matrix units want, and gives bfloat16 in that order: cuDNN 9.19 has next to no plans that give
float32. Sums are in float32 before. Plans that are not deterministic are never taken; nor, in float32, those that round
operands or trade accuracy for speed. That every layer of the paper has such a plan is tested without a device
(`tests/cuda/runtime/test_cudnn.py`). A convolution that has none is said, once, with the reason: it then goes by
patches, which takes many times as long.
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
        said(error)
        return None
    return cudnn


def said(error: Exception) -> None:
    """The notice that there is no cuDNN to be used, and why."""
    logging.getLogger("minialex").warning(
        "cuDNN cannot be used (%s): convolutions go by matrices of patches, which is slower; install it with: %s",
        " ".join(str(error).split()),
        INSTALL,
    )


def handle(cudnn: Any) -> Any:
    """A handle on the current device.

    cuDNN looks for NVRTC and cuBLAS by their names alone, and finds neither where they lie in Python's packages unless
    somebody has loaded them: then plans that it compiles at run time are missing.

    Raises:
        RuntimeError: If a library is missing (`cuda.pathfinder`'s own error is one) or cannot be initialised.
    """
    from cuda.pathfinder import load_nvidia_dynamic_lib

    for name in ("nvrtc", "cublas"):
        load_nvidia_dynamic_lib(name)
    return cudnn.create_handle()


def strides(dims: tuple[int, ...], last: bool) -> list[int]:
    """Distances between numbers of [N,C,H,W] in memory, with the channels last or in that order."""
    _, C, H, W = dims
    return [C * H * W, 1, W * C, C] if last else [C * H * W, H * W, W, 1]


class Plan:
    """A convolution that cuDNN has planned.

    Args:
        cudnn: the module
        convolution: what is computed
        build: whether the plan that is likely the best is made ready; without, all that fit are left to choose from by
            their index (``graph.build_plan_at_index``)
        where: ``handle=…`` of a device, or ``device_property=…`` to plan for one that is not here

    Raises:
        cudnn.cudnnGraphNotSupportedError, RuntimeError: If no plan fits.
    """

    def __init__(self, cudnn: Any, convolution: Convolution, *, build: bool = True, **where: Any) -> None:
        kinds, notes, it = cudnn.data_type, cudnn.numerical_note, convolution
        last = it.last or it.precision == "bfloat16"
        kind = kinds.BFLOAT16 if it.precision == "bfloat16" else kinds.FLOAT
        graph = cudnn.pygraph(
            io_data_type=kind, intermediate_data_type=kinds.FLOAT, compute_data_type=kinds.FLOAT, **where
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
        self.out.set_output(True).set_dim(list(dims)).set_stride(strides(dims, last)).set_data_type(kind)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        unwanted = [notes.NONDETERMINISTIC, notes.WINOGRAD, notes.FFT]
        graph.deselect_numeric_notes([*unwanted, notes.TENSOR_CORE] if it.precision == "float32" else unwanted)
        graph.check_support()
        self.graph = graph
        if build:
            graph.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
            self.workspace = int(graph.get_workspace_size())

    def operands(self, a: int, b: int, out: int) -> dict[Any, int]:
        """Addresses by what lies there, as ``graph.execute`` takes them."""
        return {self.first: a, self.second: b, self.out: out}


class Convolutions:
    """cuDNN on one device: its plans, each made once. Made while the device is the current one."""

    def __init__(self) -> None:
        self._plans: dict[Convolution, Plan | None] = {}
        self._handle: Any = None
        self._cudnn = frontend()
        if self._cudnn is not None:
            try:
                self._handle = handle(self._cudnn)
            except RuntimeError as error:  # the frontend alone, say, without cuDNN's own library
                said(error)
                self._cudnn = None

    def plan(self, convolution: Convolution) -> Plan | None:
        """The plan, or None where there is no cuDNN or, which is said, no plan that fits."""
        if self._cudnn is None:
            return None
        if convolution not in self._plans:
            try:
                self._plans[convolution] = Plan(self._cudnn, convolution, handle=self._handle)
            except (self._cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
                self._plans[convolution] = None
                logging.getLogger("minialex").warning(
                    "cuDNN has no plan for %s (%s): it goes by matrices of patches, which is many times slower",
                    convolution,
                    " ".join(str(error).split())[:300] or type(error).__name__,
                )
        return self._plans[convolution]

    def handle(self, stream: int) -> Any:
        """A handle for one stream, which all its convolutions are asked of: work of another stream never goes there.

        It is never given back, as cuBLAS's are not: that makes the host wait for the device.
        """
        assert self._cudnn is not None
        made = handle(self._cudnn)
        self._cudnn.set_stream(handle=made, stream=stream)
        return made

    def run(self, handle: Any, convolution: Convolution, a: int, b: int, out: int, workspace: int) -> None:
        """A planned convolution on a handle's stream, at these addresses."""
        plan = self.plan(convolution)
        assert plan is not None
        plan.graph.execute(plan.operands(a, b, out), workspace, handle=handle)
