"""A pretend Python frontend of cuDNN over a pretend driver: what the backend asks of ``cudnn``.

Tensors are looked at in memory by their own strides, so that an order of dimensions that is wrong gives wrong numbers.
That the real module takes the same calls is seen by `test_cudnn`, where there is one.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
from pretend_driver import Driver

from minialex_cuda.runtime.fake import rounded
from minialex_numpy.conv2d import conv2d, conv2d_backward


class Here:
    """Where all of it is: the pretend driver is put here."""

    driver: Driver


SIZES = {"float": np.dtype(np.float32), "bfloat16": np.dtype(np.uint16)}
WORKSPACE = 4096
PLANS, BARRED = 3, 1
"""How many plans there are of anything, and which of them is not to be had."""
RECTIFIED = np.maximum
"""What a ReLU is: what is no number stays."""

data_type = SimpleNamespace(FLOAT="float", BFLOAT16="bfloat16")
numerical_note = SimpleNamespace(
    NONDETERMINISTIC="nondeterministic", WINOGRAD="winograd", FFT="fft", TENSOR_CORE="tensor core"
)
heur_mode = SimpleNamespace(A="a", FALLBACK="fallback")
build_plan_policy = SimpleNamespace(HEURISTICS_CHOICE="choice")
handles: dict[int, dict[str, int]] = {}
__version__ = "1.18.0"


def backend_version() -> int:
    """Of the library."""
    return 91900


class cudnnGraphNotSupportedError(RuntimeError):  # noqa: N801 - the module's own name
    """No plan."""


def create_handle() -> int:
    """A handle on the current device."""
    Here.driver.not_captured("cuDNN is initialised")
    made = Here.driver.handle()
    handles[made] = {"device": max(Here.driver.current, 0)}
    return made


def set_stream(handle: int, stream: int) -> None:
    """Where later work goes."""
    assert Here.driver.stream(stream).device == handles[handle]["device"], "cuDNN of one device on a stream of another"
    handles[handle]["stream"] = stream


class Tensor:
    """A tensor of a graph."""

    def __init__(self, dim: Any = (), stride: Any = (), kind: str = "") -> None:
        self.dim, self.stride, self.kind, self.output = tuple(dim), tuple(stride), kind, False

    def set_output(self, output: bool) -> Tensor:
        self.output = output
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = tuple(dim)
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = tuple(stride)
        return self

    def set_data_type(self, kind: str) -> Tensor:
        self.kind = kind
        return self

    def at(self, address: int, device: int) -> Any:
        """Its numbers as [N,C,H,W], whatever their order in memory."""
        dtype = SIZES[self.kind]
        count = 1 + sum((n - 1) * step for n, step in zip(self.dim, self.stride, strict=True))
        assert count == np.prod(self.dim), "a tensor with gaps"
        Here.driver.on(device, address, count * dtype.itemsize, "a tensor of cuDNN")
        flat = np.frombuffer((ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address), dtype)
        return np.lib.stride_tricks.as_strided(flat, self.dim, [dtype.itemsize * step for step in self.stride])


def read(x: Any) -> Any:
    """A tensor's numbers, as they are when its turn comes."""
    wide = (x.astype(np.uint32) << 16).view(np.float32) if x.dtype == np.uint16 else x
    return np.ascontiguousarray(wide)


class pygraph:  # noqa: N801 - the module's own name
    """A graph of one convolution."""

    def __init__(self, *, io_data_type: str, intermediate_data_type: str, compute_data_type: str, handle: int) -> None:
        assert intermediate_data_type == compute_data_type == "float"
        self.device, self.notes, self.built, self.io = handles[handle]["device"], [""], False, io_data_type
        self.added: Tensor | None = None
        self.rectified = False

    def tensor(self, *, name: str, dim: list[int], stride: list[int], data_type: str) -> Tensor:
        assert data_type == self.io
        return Tensor(dim, stride, data_type)

    def _convolution(self, kind: str, first: Tensor, second: Tensor, **numbers: Any) -> Tensor:
        assert numbers["dilation"] == [1, 1]
        (above, left), (below, right) = numbers["pre_padding"], numbers["post_padding"]
        self.numbers = {"stride": numbers["stride"][0], "padding": ((above, below), (left, right))}
        self.kind, self.first, self.second, self.out = kind, first, second, Tensor()
        return self.out

    def bias(self, *, name: str, input: Tensor, bias: Tensor) -> Tensor:
        assert input is self.out
        assert bias.dim == (1, self.second.dim[0], 1, 1)
        self.added, self.out = bias, Tensor()
        return self.out

    def relu(self, *, name: str, input: Tensor) -> Tensor:
        assert input is self.out
        self.rectified, self.out = True, Tensor()
        return self.out

    def conv_fprop(self, *, image: Tensor, weight: Tensor, **numbers: Any) -> Tensor:
        return self._convolution("fprop", image, weight, **numbers)

    def conv_dgrad(self, *, loss: Tensor, filter: Tensor, **numbers: Any) -> Tensor:
        return self._convolution("dgrad", loss, filter, **numbers)

    def conv_wgrad(self, *, image: Tensor, loss: Tensor, **numbers: Any) -> Tensor:
        return self._convolution("wgrad", loss, image, **numbers)

    def validate(self) -> None:
        assert self.out.output
        assert len(self.out.dim) == len(self.out.stride) == 4

    def build_operation_graph(self) -> None:
        """Nothing to do here."""

    def create_execution_plans(self, modes: list[str]) -> None:
        assert modes

    def deselect_numeric_notes(self, notes: list[str]) -> None:
        self.notes = notes

    def check_support(self) -> None:
        assert "nondeterministic" in self.notes
        assert self.out.kind == self.io

    def build_plans(self, policy: str) -> None:
        Here.driver.not_captured("a convolution is planned")
        self.built = True

    def get_workspace_size(self) -> int:
        return WORKSPACE

    def get_execution_plan_count(self) -> int:
        return PLANS

    def build_plan_at_index(self, index: int) -> None:
        if index == BARRED:
            raise RuntimeError("a plan that was deselected")
        self.build_plans("")

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return WORKSPACE

    def get_plan_name_at_index(self, index: int) -> str:
        return f"eng{index}"

    def execute_plan_at_index(self, tensors: dict[Tensor, int], workspace: int, index: int, handle: int) -> None:
        assert index != BARRED
        self.execute(tensors, workspace, handle)

    def execute(self, tensors: dict[Tensor, int], workspace: int, handle: int) -> None:
        assert self.built
        known = handles[handle]
        assert known["device"] == self.device
        queue = Here.driver.stream(known["stream"])
        Here.driver.on(self.device, workspace, WORKSPACE, "cuDNN's workspace")
        a, b, out = (t.at(tensors[t], self.device) for t in (self.first, self.second, self.out))
        added = None if self.added is None else self.added.at(tensors[self.added], self.device)
        assert len(tensors) == (3 if added is None else 4)

        def work() -> None:
            first, second = read(a), read(b)
            with np.errstate(all="ignore"):
                if self.kind == "fprop":
                    more = np.zeros(second.shape[0], np.float32) if added is None else read(added).reshape(-1)
                    made = conv2d(first, second, more, **self.numbers)
                    made = RECTIFIED(made, 0) if self.rectified else made
                elif self.kind == "dgrad":
                    anything = np.zeros(out.shape, np.float32)
                    made = conv2d_backward(first, anything, second, **self.numbers, need_dx=True)[0]
                else:
                    anything = np.zeros(out.shape, np.float32)
                    made = conv2d_backward(first, second, anything, **self.numbers, need_dx=False)[1]
            if self.io == "bfloat16":
                made = rounded(made.astype(np.float32), "bfloat16").view(np.uint32) >> 16
            out[...] = made

        Here.driver.ask(queue, work)
