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
from minialex_cuda import CudaBackend, probe


def machine(
    monkeypatch: pytest.MonkeyPatch,
    *,
    missing: tuple[str, ...] = (),
    numpy: str = "2.4.6",
    driver: int | None = 13000,
    devices: bool = True,
) -> None:
    """Pretend a machine."""
    monkeypatch.setattr(probe, "find_spec", lambda name: None if name in missing else object())
    monkeypatch.setattr(probe, "version", lambda name: numpy)
    monkeypatch.setattr(probe, "driver_version", lambda: driver)
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


def test_importing_the_package_needs_no_cupy() -> None:
    code = "import sys, minialex_cuda; print([m for m in ('cupy', 'numba_cuda', 'cudnn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
