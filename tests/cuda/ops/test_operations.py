"""The CUDA backend's operations against the reference, through the conformance kit, on the host's runtime.

Its kernels are compiled for the processor here; `test_simulator` runs the same ones as CUDA kernels.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings

from minialex.conformance import run
from minialex.conformance.checks import CHECKS, PROFILES
from minialex.conformance.compare import Disagreement
from minialex.errors import ConfigurationError
from minialex_cuda import CudaBackend
from minialex_cuda.runtime import fake
from minialex_cuda.runtime.fake import FakeRuntime, rounded

PRODUCTS = ("conv2d", "conv2d_backward", "linear", "linear_backward")


@pytest.fixture(scope="module")
def cuda() -> CudaBackend:
    return CudaBackend(runtime=FakeRuntime())


@pytest.mark.parametrize("operation", list(CHECKS))
def test_operation_conforms(cuda: CudaBackend, operation: str) -> None:
    CHECKS[operation](cuda, settings(PROFILES["ci"], max_examples=50))


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
@pytest.mark.parametrize("operation", PRODUCTS)
def test_coarser_precision_conforms_within_its_own_bounds(operation: str, precision: str) -> None:
    (result,) = run(CudaBackend(runtime=FakeRuntime(), precision=precision), [operation])
    assert result.passed, result.message
    assert f"operands rounded to {precision}" in result.message


@pytest.mark.parametrize("operation", ["linear", "conv2d_backward"])
def test_a_unit_that_truncates_to_tf32_conforms(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten bits of the fraction are kept, however; of nine it is said that they are too few."""
    kept = {"bits": 10}

    def truncated(x: np.ndarray, precision: str) -> np.ndarray:
        if precision != "tf32" or x.dtype != np.float32:
            return x
        drop = np.uint32(23 - kept["bits"])
        bits = np.ascontiguousarray(x).view(np.uint32) >> drop << drop
        return np.where(np.isfinite(x), bits.view(np.float32), x)

    monkeypatch.setattr(fake, "rounded", truncated)
    backend = CudaBackend(runtime=FakeRuntime(), precision="tf32")
    few = settings(PROFILES["ci"], max_examples=40)
    CHECKS[operation](backend, few)
    kept["bits"] = 9
    with pytest.raises(Disagreement, match="differs from the reference"):
        CHECKS[operation](backend, few)


def test_steps_of_a_unit_that_truncates_conform(monkeypatch: pytest.MonkeyPatch) -> None:
    """As an H100 does: errors of one sign add up from layer to layer."""

    def truncated(x: np.ndarray, precision: str) -> np.ndarray:
        if precision != "tf32" or x.dtype != np.float32:
            return x
        return (np.ascontiguousarray(x).view(np.uint32) >> np.uint32(13) << np.uint32(13)).view(np.float32)

    monkeypatch.setattr(fake, "rounded", truncated)
    (result,) = run(CudaBackend(runtime=FakeRuntime(), precision="tf32"), ["compile_step"])
    assert result.passed, result.message


class Boaster:
    """Says that it rounds less than it does."""

    def __init__(self, precision: str, says: dict[str, str]) -> None:
        self._backend = CudaBackend(runtime=FakeRuntime(), precision=precision)
        self.operand_formats = says

    def __getattr__(self, name: str) -> object:
        return getattr(self._backend, name)


@pytest.mark.parametrize(
    ("precision", "says"), [("tf32", {}), ("bfloat16", {}), ("bfloat16", dict.fromkeys(PRODUCTS, "tf32"))]
)
@pytest.mark.parametrize("operation", PRODUCTS)
def test_rounding_that_is_not_declared_is_caught(operation: str, precision: str, says: dict[str, str]) -> None:
    with pytest.raises(Disagreement, match="differs from the reference"):
        CHECKS[operation](Boaster(precision, says), settings(PROFILES["ci"], max_examples=40))


def test_rounding_to_nearest_even() -> None:
    one, step = np.float32(1), np.float32(2**-7)
    x = np.array([one, one + step / 2, one + step, one + 3 * step / 2, -one - step / 4, np.inf, np.nan], np.float32)
    expected = [one, one, one + step, one + 2 * step, -one, np.inf, np.nan]
    np.testing.assert_array_equal(rounded(x, "bfloat16"), np.array(expected, np.float32))
    assert rounded(np.float32([1 + 2**-11 + 2**-20]), "tf32") == np.float32(1 + 2**-10)
    assert rounded(x, "float32") is x


def test_large_batches_are_convolved_in_pieces(cuda: CudaBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """With pieces of two images a convolution of seven is the same but for the rounding of sums over images."""
    from minialex_cuda.runtime import place

    random = np.random.default_rng(0)
    x, w, b = (cuda.to_device(random.standard_normal(shape), "cuda:0") for shape in ((7, 3, 9, 8), (5, 3, 3, 3), (5,)))
    numbers = {"stride": 2, "padding": ((1, 0), (0, 2))}
    y = cuda.conv2d(x, w, b, **numbers)
    whole = cuda.conv2d_backward(y, x, w, **numbers, need_dx=True)
    launches = len(convolutions(cuda, x, w, b, numbers))
    monkeypatch.setattr(place, "SCRATCH", 2 * 27 * 4 * 5 * 8)
    assert len(convolutions(cuda, x, w, b, numbers)) == 4 * launches
    again = cuda.conv2d(x, w, b, **numbers)
    np.testing.assert_array_equal(cuda.to_numpy(again), cuda.to_numpy(y))
    for first, second in zip(whole, cuda.conv2d_backward(y, x, w, **numbers, need_dx=True), strict=True):
        np.testing.assert_allclose(cuda.to_numpy(first), cuda.to_numpy(second), rtol=1e-12, atol=1e-12)


def convolutions(cuda: CudaBackend, x: object, w: object, b: object, numbers: dict[str, object]) -> list[str]:
    """Names of the kernels that a convolution launches."""
    found: list[str] = []
    stream = cuda.place("cuda:0").stream
    original = type(stream).do
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(stream), "do", lambda s, name, *rest: (found.append(name), original(s, name, *rest)))
        cuda.conv2d(x, w, b, **numbers)
    return found


def test_arrays_of_others_are_refused(cuda: CudaBackend) -> None:
    with pytest.raises(ConfigurationError, match="expected an array of the cuda backend, got a ndarray: call to_dev"):
        cuda.relu(np.zeros(3, np.float32))
    with pytest.raises(ConfigurationError, match="no precision 'float16'"):
        CudaBackend(runtime=FakeRuntime(), precision="float16")
    with pytest.raises(ConfigurationError, match="no device 'cuda:7'; there are cuda:0, cuda:1"):
        cuda.zeros((1,), "float32", "cuda:7")


def test_a_card_without_bfloat16_says_so() -> None:
    class Turing(FakeRuntime):
        def has_bfloat16(self, device: str) -> bool:
            return False

    assert CudaBackend(runtime=Turing()).precision == "float32"
    with pytest.raises(ConfigurationError, match=r"cuda:0 has no bfloat16 .*: use float32"):
        CudaBackend(runtime=Turing(), precision="bfloat16")


def test_memory_that_is_not_there(cuda: CudaBackend) -> None:
    small = CudaBackend(runtime=FakeRuntime(memory=1000))
    kept = small.zeros((200,), "float32", "cuda:0")
    with pytest.raises(MemoryError, match="cuda:0: needed 400 bytes more, 200 of 1,000 are free"):
        small.zeros((100,), "float32", "cuda:0")
    assert small.zeros((100,), "float32", "cuda:1").shape == (100,)
    del kept
    assert small.zeros((100,), "float32", "cuda:0").shape == (100,)
