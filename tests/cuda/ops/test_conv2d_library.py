"""Convolutions by a library: a pretend one, NumPy's, stands in for cuDNN, so that all around its calls is tested."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from minialex.conformance import steps
from minialex.conformance.compare import same_bits
from minialex.network.layers import Conv2d, Linear
from minialex.network.network import Network
from minialex_cuda import CudaBackend
from minialex_cuda.ops import channels_last
from minialex_cuda.runtime.array import Flat
from minialex_cuda.runtime.fake import FakeRuntime, FakeStream, rounded
from minialex_cuda.runtime.protocol import PRECISIONS, Convolution
from minialex_numpy.conv2d import conv2d, conv2d_backward


class LibraryRuntime(FakeRuntime):
    """The host's runtime with a library of convolutions that takes and gives what cuDNN does."""

    def __init__(self) -> None:
        super().__init__()
        self.done: list[Convolution] = []
        self.launched: set[str] = set()

    def launch(self, stream: FakeStream, kernel: Any, *rest: Any) -> None:
        self.launched.add(kernel.name)
        super().launch(stream, kernel, *rest)

    def convolution_bytes(self, device: str, convolution: Convolution) -> int | None:
        return 100

    def convolve(
        self,
        stream: FakeStream,
        convolution: Convolution,
        a: Flat,
        b: Flat,
        out: Flat,
        workspace: Flat,
        bias: Flat | None = None,
    ) -> None:
        it = convolution
        assert it.bias == (bias is not None)
        self.done.append(it)
        image, kernels, maps = (it.N, it.C, it.H, it.W), (it.K, it.C, it.R, it.S), (it.N, it.K, it.P, it.Q)
        numbers: dict[str, Any] = {"stride": it.stride, "padding": it.padding}
        narrow = it.precision == "bfloat16"
        last = it.last or narrow
        first, second, target = a.raw, b.raw, out.raw

        def read(raw: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
            assert raw.dtype == (np.uint16 if narrow else np.float32)
            wide = (raw.astype(np.uint32) << 16).view(np.float32) if narrow else rounded(raw, it.precision)
            if not last:
                return wide.reshape(dims)
            N, C, H, W = dims
            return np.ascontiguousarray(wide.reshape(N, H, W, C).transpose(0, 3, 1, 2))

        def work() -> None:
            with np.errstate(all="ignore"):
                if it.kind == "fprop":
                    added = np.zeros(it.K, np.float32) if bias is None else read(bias.raw, (1, it.K, 1, 1)).reshape(-1)
                    made = conv2d(read(first, image), read(second, kernels), added, **numbers)
                    made = np.maximum(made, 0) if it.rectify else made
                elif it.kind == "dgrad":
                    anything = np.zeros(image, np.float32)
                    dy, w = read(first, maps), read(second, kernels)
                    made = conv2d_backward(dy, anything, w, **numbers, need_dx=True)[0]
                else:
                    anything = np.zeros(kernels, np.float32)
                    dy, x = read(first, maps), read(second, image)
                    made = conv2d_backward(dy, x, anything, **numbers, need_dx=False)[1]
            if last:
                made = made.transpose(0, 2, 3, 1).copy()
            if narrow:
                assert target.dtype == np.uint16
                made = rounded(made, "bfloat16").view(np.uint32) >> 16
            target[:] = made.reshape(-1)

        stream.do("convolve", work, (a, b) if bias is None else (a, b, bias), (out, workspace))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_compiled_steps_conform(monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    runtime = LibraryRuntime()
    monkeypatch.setattr(steps, "STEPS", 1)
    layers = tuple(  # full layers in words, too
        replace(layer, features=32) if isinstance(layer, Linear) and layer.name != "fc7" else layer
        for layer in steps.NETWORK.layers
    )
    monkeypatch.setattr(steps, "NETWORK", Network("words", steps.NETWORK.input_shape, layers))
    steps.check_steps(CudaBackend(runtime=runtime, precision=precision), ("float32",))
    words = "bfloat16" if precision == "bfloat16" else "float32"
    assert {f"dropout_{words}", f"dropout_backward_{words}"} <= runtime.launched
    assert {done.kind for done in runtime.done} == {"fprop", "dgrad", "wgrad"}
    fused = {done.rectify for done in runtime.done if done.bias}
    assert fused == (set() if precision == "float32" else {False, True})
    assert all(done.last and done.C % 8 == done.K % 8 == 0 for done in runtime.done)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_steps_conform_whose_channels_do_not_come_in_fours(monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    """The flat kernels, and the library with the channels first."""
    runtime = LibraryRuntime()
    backend, given = CudaBackend(runtime=runtime, precision=precision), steps.data("float32")
    monkeypatch.setattr(steps, "STEPS", 1)
    layers = tuple(replace(layer, kernels=12) if isinstance(layer, Conv2d) else layer for layer in steps.NETWORK.layers)
    monkeypatch.setattr(steps, "NETWORK", Network("twelve", steps.NETWORK.input_shape, layers))
    given = steps.data("float32")
    program = steps.program_of("train", "float32", ("cuda:0", "cuda:1"), backend.devices, more=False)
    exact, allowed = steps.spread(backend, "train", given)
    run = steps.compile_on(backend, program, given)
    assert run is not None
    steps.check_run("six channels a column", run, exact, allowed, more=False)
    assert runtime.done
    assert not any(done.last or done.precision == "bfloat16" for done in runtime.done)


def test_patches_and_library_agree() -> None:
    """Walked with patches and compiled with the library, from the same weights: near each other, and not the same."""
    recorded = steps.program_of("train", "float32", ("cuda:0", "cuda:1"), ("cuda:0", "cuda:1"), more=True)
    runs = [
        steps.compile_on(CudaBackend(runtime=kind()), recorded, steps.data("float32"))
        for kind in (FakeRuntime, LibraryRuntime)
    ]
    assert runs[0] is not None
    assert runs[1] is not None
    for first, second in zip(*runs, strict=True):
        for name, array in first.items():
            if name.role == "mask":
                assert same_bits(array, second[name])
            else:
                np.testing.assert_allclose(array, second[name], rtol=2e-3, atol=2e-4, err_msg=name)


def test_bfloat16_is_rounded_as_it_should_be() -> None:
    backend = CudaBackend(runtime=FakeRuntime(), precision="bfloat16")
    x = np.random.default_rng(0).standard_normal((3, 40)).astype(np.float32)
    x.reshape(-1)[:7] = [0.0, -0.0, np.inf, -np.inf, np.nan, 1 + 2**-8, 3.4e38]
    x.view(np.uint32).reshape(-1)[7] = 0x7F800001  # a NaN whose upper half is that of infinity
    there = channels_last.converted(backend.place("cuda:0"), backend.to_device(x, "cuda:0"), dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal((backend.to_numpy(there).astype(np.uint32) << 16).view(np.float32),
                                      rounded(x, "bfloat16"))  # fmt: skip
