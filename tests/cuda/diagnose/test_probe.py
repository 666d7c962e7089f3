"""Why the backend cannot run here: one line, with what to do."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import types
from typing import Any

import pytest

from minialex import cli, registry
from minialex.errors import BackendUnavailable
from minialex_cuda import CudaBackend
from minialex_cuda.diagnose import probe


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    missing: tuple[str, ...] = (),
    numpy: str = "2.4.6",
    driver: int | None = 13000,
    devices: bool = True,
    cublas: str | None = None,
) -> None:
    """Pretend a machine."""
    monkeypatch.setattr(probe, "find_spec", lambda name: None if name in missing else object())
    monkeypatch.setattr(probe, "version", lambda name: numpy)
    monkeypatch.setattr(probe, "driver_version", lambda: driver)
    monkeypatch.setattr(probe, "cublas_fault", lambda: cublas)
    cupy: Any = types.ModuleType("cupy")
    cupy.cuda = types.SimpleNamespace(is_available=lambda: devices)
    monkeypatch.setitem(sys.modules, "cupy", cupy)


def test_a_machine_that_has_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch)
    assert probe.reason() is None


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ({"missing": ("cupy",)}, r"CuPy not installed; install with: pip install 'minialex\[cuda\]'"),
        ({"missing": ("numba_cuda",)}, r"numba-cuda not installed; install with: pip install 'minialex\[cuda\]'"),
        ({"missing": ("cupy", "numba_cuda")}, "CuPy and numba-cuda not installed"),
        ({"numpy": "2.5.5"}, r"does not work with NumPy 2\.5\.5; install with: pip install .* 'numpy<2\.5'"),
        ({"driver": None}, "no NVIDIA driver found"),
        ({"driver": 12080}, r"driver is too old: it knows CUDA 12\.8, CUDA 13\.0 is needed; install driver 580"),
        ({"devices": False}, "shows no device"),
        ({"cublas": "no libcublas"}, r"cuBLAS does not load \(no libcublas\); install with: pip install"),
    ],
)
def test_the_reason_is_one_line(monkeypatch: pytest.MonkeyPatch, lacks: dict[str, Any], says: str) -> None:
    machine(monkeypatch, **lacks)
    with pytest.raises(BackendUnavailable, match=says) as caught:
        registry.build("cuda", CudaBackend)
    assert str(caught.value).startswith("backend 'cuda' cannot be used: ")
    assert "\n" not in str(caught.value)


def test_the_drivers_version_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    class Driver:
        def cuDriverGetVersion(self, found: Any) -> int:  # noqa: N802 - the driver's own name
            found._obj.value = 12040
            return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda name: Driver())
    assert probe.driver_version() == 12040

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert probe.driver_version() is None


def test_commands_say_it(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    machine(monkeypatch, driver=None)
    assert cli.run(["train", "--backend", "cuda", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: backend 'cuda' cannot be used: no NVIDIA driver found")
    assert not (tmp_path / "run").exists()
    assert cli.run(["train", "--backend", "cuda", "--threads", "2"]) == 2
    assert "the cuda backend has no --threads" in capsys.readouterr().err
    assert cli.run(["backends"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "cannot be used: no" in out
    assert "backend 'cuda' cannot" not in out


def test_cublas_that_is_not_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    pathfinder: Any = types.ModuleType("cuda.pathfinder")

    def load(name: str) -> None:
        raise RuntimeError(f'Failure finding "lib{name}.so"\nNo such file')

    pathfinder.load_nvidia_dynamic_lib = load
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", pathfinder)
    assert probe.cublas_fault() == 'Failure finding "libcublas.so" No such file'


def test_without_cudnn_there_is_a_notice_and_no_plan(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Convolutions then go by patches (`FakeRuntime` has no library either, and all tests of steps run on it)."""
    from minialex_cuda.runtime.cudnn import Convolutions
    from minialex_cuda.runtime.protocol import Convolution

    monkeypatch.setitem(sys.modules, "cudnn", None)
    with caplog.at_level("WARNING", "minialex"):
        found = Convolutions()
    assert "pip install 'minialex[cudnn]'" in caplog.text
    assert "convolutions go by matrices of patches, which is slower" in caplog.text
    asked = Convolution("fprop", 1, 3, 8, 8, 4, 3, 3, 6, 6, 1, ((0, 0), (0, 0)), "float32")
    assert found.plan(asked) is None


def test_importing_the_package_needs_no_cupy() -> None:
    code = "import sys, minialex_cuda; print([m for m in ('cupy', 'numba_cuda', 'cudnn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
