"""Why the backend cannot run here: one line, with what to do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from minialex.backend import registry
from minialex.cli import app as cli
from minialex.errors import BackendUnavailable
from minialex_cuda import CudaBackend
from minialex_cuda.diagnose import driver as drivers
from minialex_cuda.diagnose import wheels
from minialex_cuda.diagnose.diagnosis import reason
from minialex_cuda.diagnose.driver import Driver, DriverError

SOUND = {"numpy": "2.4.6", "numba-cuda": "0.30.4", "cupy-cuda13x": "14.2.0"}

Machine = Callable[..., None]


@pytest.fixture
def machine(fakes: Any, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Pretend a machine."""

    def pretend(missing: tuple[str, ...] = (), broken: str = "", **library: Any) -> None:
        found = {name: version for name, version in SOUND.items() if name not in missing}

        def load(name: str) -> None:
            if name == broken:
                raise RuntimeError(f'Failure finding "lib{name}.so"\nNo such file')

        monkeypatch.setattr(wheels, "installed", lambda: found)
        monkeypatch.setattr(drivers, "load", lambda: Driver(fakes.Library(**library)))
        monkeypatch.setattr(wheels, "_load", load)

    return pretend


def test_a_machine_that_has_everything(machine: Machine) -> None:
    machine()
    assert reason() is None


@pytest.mark.parametrize(
    ("lacks", "says"),
    [
        ({"missing": ("cupy-cuda13x",)}, r'CuPy: not installed; pip install "minialex\[cuda\]"'),
        ({"missing": ("numba-cuda",)}, r'numba-cuda: not installed; pip install "minialex\[cuda\]"'),
        ({"cuda": 12080}, r"driver runs 12\.8; install driver 580 or newer"),
        ({"cuda": 12080, "missing": ("cupy-cuda13x",)}, "CuPy: not installed"),
        ({"names": []}, "devices: the driver shows no device; check that `nvidia-smi` lists"),
        ({"init": 803}, "have different versions; reboot the machine"),
        ({"broken": "cupy"}, 'CuPy: cannot be loaded: Failure finding "libcupy.so" No such file; pip install'),
        ({"broken": "cublas"}, 'cuBLAS: cannot be loaded: Failure finding "libcublas.so" No such file; pip install'),
    ],
)
def test_the_reason_is_one_line(machine: Machine, lacks: dict[str, Any], says: str) -> None:
    machine(**lacks)
    with pytest.raises(BackendUnavailable, match=says) as caught:
        registry.build("cuda", CudaBackend)
    assert str(caught.value).startswith("backend 'cuda' cannot be used: ")
    assert "\n" not in str(caught.value)


def test_an_old_card_beside_a_new_one_is_no_reason(machine: Machine) -> None:
    machine(capability=(5, 0))
    assert reason() is None


def test_commands_say_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    def none() -> None:
        raise DriverError("no NVIDIA driver", "install one")

    machine()
    monkeypatch.setattr(drivers, "load", none)
    assert cli.run(["train", "--backend", "cuda", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith(
        "error: backend 'cuda' cannot be used: driver: no NVIDIA driver; install one\n"
    )
    assert not (tmp_path / "run").exists()
    assert cli.run(["train", "--backend", "cuda", "--threads", "2"]) == 2
    assert "the cuda backend has no --threads" in capsys.readouterr().err
    assert cli.run(["backends"]) == 0
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "cannot be used: driver: no" in out
    assert "backend 'cuda' cannot" not in out


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
    assert "convolutions are computed with im2col, which is slower" in caplog.text
    asked = Convolution("fprop", 1, 3, 8, 8, 4, 3, 3, 6, 6, 1, ((0, 0), (0, 0)), "float32")
    assert found.workspace(asked) is None


def test_importing_the_package_needs_no_cupy() -> None:
    code = "import sys, minialex_cuda; print([m for m in ('cupy', 'numba_cuda', 'cudnn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
