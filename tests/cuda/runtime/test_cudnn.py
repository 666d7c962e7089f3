"""cuDNN has a deterministic plan for every convolution of the paper, in every precision: planned without a device.

``MINIALEX_CUDNN`` names folders, with colons between, that `benchmarks/cudnn_plans.py` made: of cuDNN 9.19, which
PyTorch 2.11 brings, and of the newest. Without it this is skipped: a folder is a download of 1 GB.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minialex_cuda.runtime.cudnn import Convolutions
from minialex_cuda.runtime.protocol import Convolution

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
FOLDERS = [Path(name) for name in os.environ.get("MINIALEX_CUDNN", "").split(":") if name]
ASKED = Convolution("fprop", 1, 3, 8, 8, 4, 3, 3, 6, 6, 1, ((0, 0), (0, 0)), "float32")


def planned(folder: Path, batch: int) -> dict[str, Any]:
    """What `benchmarks/cudnn_plans.py` finds."""
    spec = importlib.util.spec_from_file_location("cudnn_plans", BENCHMARKS / "cudnn_plans.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.planned(folder, batch)
    return found


@pytest.mark.skipif(not FOLDERS, reason="MINIALEX_CUDNN names no folder with cuDNN to plan with")
@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_every_layer_has_a_plan_with_little_scratch_memory(folder: Path) -> None:
    found = planned(folder, 128)["plans"]
    assert len(found) == 3 * 14
    assert {name: told["error"] for name, told in found.items() if "error" in told} == {}
    assert max(told["workspace"] for told in found.values()) < 256 << 20, found


class Frontend(SimpleNamespace):
    """A module ``cudnn`` whose library can or cannot be found, and that has no plan for anything."""

    cudnnGraphNotSupportedError = type("cudnnGraphNotSupportedError", (Exception,), {})  # noqa: N815

    def __init__(self, library: bool) -> None:
        super().__init__(library=library, streams={}, handles=0)
        self.data_type = SimpleNamespace(FLOAT=0, BFLOAT16=1)
        self.numerical_note = SimpleNamespace()

    def create_handle(self) -> int:
        if not self.library:
            raise RuntimeError("Unable to find symbol cudnnCreate")
        self.handles += 1
        return int(self.handles)

    def set_stream(self, handle: int, stream: int) -> None:
        self.streams[handle] = stream

    def pygraph(self, **options: Any) -> Any:
        raise self.cudnnGraphNotSupportedError("no engine\nfits")


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """NVIDIA's libraries that are asked for."""
    names: list[str] = []
    finder = SimpleNamespace(load_nvidia_dynamic_lib=names.append)
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=finder))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", finder)
    return names


def test_a_frontend_without_its_library_is_a_notice(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loaded: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", Frontend(library=False))
    with caplog.at_level(logging.WARNING, "minialex"):
        found = Convolutions()
    assert "cuDNN cannot be used (Unable to find symbol cudnnCreate)" in caplog.text
    assert found.plan(ASKED) is None
    assert loaded == ["nvrtc", "cublas"]  # before the handle


def test_a_convolution_without_a_plan_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loaded: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", Frontend(library=True))
    with caplog.at_level(logging.WARNING, "minialex"):
        found = Convolutions()
        assert not caplog.records
        assert found.plan(ASKED) is None
        assert found.plan(ASKED) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no plan for Convolution(kind='fprop'" in record.getMessage()
    assert "(no engine fits): it goes by matrices of patches" in record.getMessage()


def test_every_stream_has_a_handle_of_its_own(monkeypatch: pytest.MonkeyPatch, loaded: list[str]) -> None:
    frontend = Frontend(library=True)
    monkeypatch.setitem(sys.modules, "cudnn", frontend)
    found = Convolutions()
    assert frontend.streams == {}  # one handle plans, and no work is asked of it
    assert found.handle(70) != found.handle(80)
    assert set(frontend.streams.values()) == {70, 80}
