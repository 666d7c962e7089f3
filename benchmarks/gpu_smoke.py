"""Can the CUDA backend do anything at all on this machine? In seconds, before minutes are spent on it.

    python benchmarks/gpu_smoke.py

Prints versions and where NVIDIA's libraries come from. Then a kernel (with a power, for which the compiler needs
NVIDIA's ``libdevice``), a product by cuBLAS and a convolution by cuDNN in every precision are compiled, done, compared
with NumPy's, and captured together in one CUDA graph whose replays must give the same bits. Last comes cuDNN's plan for
every convolution of the paper.

Ends with 0 if the backend can be used, with 1 if not, and with 3 if it can but for cuDNN, which is then better hidden.
"""

from __future__ import annotations

import platform
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]  # not installed on a bare machine

import numpy as np  # noqa: E402

from minialex_cuda.diagnose.diagnosis import reason  # noqa: E402
from minialex_cuda.runtime.kernel import kernel  # noqa: E402
from minialex_cuda.runtime.protocol import PRECISIONS, Convolution, Product  # noqa: E402

PACKAGES = (
    "numpy", "numba", "numba-cuda", "cupy-cuda13x", "cuda-bindings", "cuda-core", "cuda-pathfinder",
    "nvidia-cudnn-frontend", "nvidia-cudnn-cu13", "nvidia-cublas", "nvidia-cuda-nvrtc", "nvidia-nvjitlink",
    "nvidia-nvvm", "torch", "triton", "hypothesis", "pytest",
)  # fmt: skip
REPLAYS = 20
BATCH = 1024
"""Of the table of plans."""


@kernel("y")
def power_kernel(i, x, y):  # type: ignore[no-untyped-def]
    """y = x^(3/4)."""
    y[i] = x[i] ** x.dtype.type(0.75)


def packages() -> None:
    """What is installed, and which of NVIDIA's libraries load."""
    print("python", sys.version.split()[0], platform.platform())
    for name in PACKAGES:
        try:
            print(name, version(name))
        except PackageNotFoundError:
            print(name, "-")
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib
    except ImportError:
        raise SystemExit(
            "error: cuda-pathfinder is missing, which comes with cupy-cuda13x or numba-cuda: docs/how-to/device.md "
            "says what this machine must have"
        ) from None

    for name in ("cublas", "nvrtc", "nvvm", "nvJitLink"):
        try:
            print(name, load_nvidia_dynamic_lib(name).abs_path)
        except Exception as error:
            print(name, "does not load:", " ".join(str(error).split())[:200])


class Smoke:
    """A stream of the first device, and a few arrays on it."""

    def __init__(self) -> None:
        from minialex_cuda.runtime.device import DeviceRuntime

        self.runtime = DeviceRuntime()
        self.stream = self.runtime.stream("cuda:0")
        self.random = np.random.default_rng(0)
        self.works: list[Callable[[], None]] = []
        self.outs: list[tuple[str, Any]] = []

    def array(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """Memory for numbers."""
        count, kind = int(np.prod(shape)), np.dtype(dtype)
        memory = self.runtime.allocate(count * kind.itemsize, "cuda:0", self.stream)
        return self.runtime.flat(memory, 0, count, kind)

    def sent(self, numbers: Any) -> Any:
        """Numbers, on the device."""
        there = self.array(numbers.shape, numbers.dtype)
        self.runtime.upload(self.stream, np.ascontiguousarray(numbers), there)
        return there

    def numbers(self, *shape: int) -> Any:
        """Random ones, between 0.5 and 1.5, which bfloat16 and tf32 hold exactly."""
        return (self.random.integers(64, 192, shape) / 128).astype(np.float32)

    def do(self, name: str, work: Callable[[], None], out: Any, expected: Any, tolerance: float) -> None:
        """Do something, compare what it gives, and remember it for the graph."""
        began = time.perf_counter()
        work()
        found = self.runtime.download(self.stream, out)
        if found.dtype == np.uint16:
            found = (found.astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_allclose(found, expected.reshape(-1), rtol=tolerance, err_msg=name)
        print(f"{name}: right, {time.perf_counter() - began:.1f} s with what it compiles and loads", flush=True)
        self.works.append(work)
        self.outs.append((name, out))

    def kernel(self) -> None:
        """A kernel with a power."""
        x = self.numbers(100_003)
        a, y = self.sent(x), self.array(x.shape)
        self.do("kernel", lambda: self.runtime.launch(self.stream, power_kernel, x.size, [a, y]), y, x**0.75, 1e-6)

    def product(self) -> None:
        """A product by cuBLAS."""
        a, b = self.numbers(96, 80), self.numbers(80, 64)
        there = self.sent(a), self.sent(b), self.array((96, 64))
        asked = Product(96, 64, 80)
        self.do("cuBLAS", lambda: self.runtime.multiply(self.stream, *there, asked), there[2], a @ b, 1e-5)

    def convolution(self, precision: Any) -> None:
        """A convolution by cuDNN."""
        from minialex_numpy.conv2d import conv2d

        N, C, H, K, R = 2, 16, 12, 32, 3
        asked = Convolution("fprop", N, C, H, H, K, R, R, H, H, 1, ((1, 1), (1, 1)), precision)
        nbytes = self.runtime.convolution_bytes("cuda:0", asked)
        if nbytes is None:
            raise RuntimeError(f"cuDNN has no plan in {precision}")
        x, w = self.numbers(N, C, H, H), self.numbers(K, C, R, R)
        expected = conv2d(x, w, np.zeros(K, np.float32), stride=1, padding=((1, 1), (1, 1)))
        last = precision == "bfloat16"
        if last:
            expected = expected.transpose(0, 2, 3, 1)
            x, w = ((a.transpose(0, 2, 3, 1).copy().view(np.uint32) >> 16).astype(np.uint16) for a in (x, w))
        a, b, y = self.sent(x), self.sent(w), self.array(expected.shape, np.uint16 if last else np.float32)
        workspace = self.array((max(nbytes, 1),), np.uint8)
        self.do(
            f"cuDNN, {precision}", lambda: self.runtime.convolve(self.stream, asked, a, b, y, workspace), y, expected,
            2.0**-8 if last else 1e-5,
        )  # fmt: skip

    def graph(self) -> None:
        """All that was done, once more as one graph; its replays give the same bits."""
        runtime, stream = self.runtime, self.stream
        before = [runtime.download(stream, out) for _, out in self.outs]
        runtime.begin_capture(stream)
        try:
            for work in self.works:
                work()
        finally:
            graph = runtime.end_capture(stream)
        for _ in range(REPLAYS):
            for _, out in self.outs:
                runtime.clear(stream, out)
            runtime.replay(stream, graph)
            for (name, out), bits in zip(self.outs, before, strict=True):
                if not np.array_equal(runtime.download(stream, out), bits):
                    raise RuntimeError(f"{name}: a replayed graph gives other bits")
        print(
            f"a graph of {len(self.works)} ({', '.join(name for name, _ in self.outs)}): {REPLAYS} replays, same bits"
        )

    def plans(self) -> bool:
        """cuDNN's plan for every convolution; whether all are there."""
        from convolutions import LAYERS, convolution

        missing = 0
        for precision in PRECISIONS:
            for name in LAYERS:
                for kind in ("fprop", "dgrad", "wgrad"):
                    asked = convolution(name, kind, BATCH, precision)  # type: ignore[arg-type]
                    if asked is None:
                        continue
                    began = time.perf_counter()
                    nbytes = self.runtime.convolution_bytes("cuda:0", asked)
                    missing += nbytes is None
                    told = "NO PLAN" if nbytes is None else f"scratch memory {nbytes / 2**20:.1f} MiB"
                    print(f"  {precision} {name} {kind}: {told}, {time.perf_counter() - began:.2f} s", flush=True)
        print(f"plans at batch {BATCH:,}: {'all there' if not missing else f'{missing} MISSING'}")
        return not missing


def main() -> int:
    """Look at everything."""
    packages()
    why = reason()
    if why:
        print("the cuda backend cannot be used:", why)
        return 1
    try:
        smoke = Smoke()
        smoke.kernel()
        smoke.product()
        smoke.graph()
    except Exception:
        traceback.print_exc()
        print("the cuda backend cannot be used: see above")
        return 1
    try:
        for precision in PRECISIONS:
            smoke.convolution(precision)
        smoke.graph()
        smoke.plans()
    except Exception:
        traceback.print_exc()
        print("the cuda backend can be used, BUT NOT cuDNN (see above): convolutions use im2col, many times slower")
        return 3
    print("the cuda backend can be used")
    return 0


if __name__ == "__main__":
    sys.exit(main())
