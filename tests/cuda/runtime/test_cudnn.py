"""cuDNN has a deterministic plan for every convolution of the paper, in every precision: planned without a device.

And which of them is taken, on a pretend cuDNN.

``MINIALEX_CUDNN`` names folders, with colons between, that `benchmarks/cudnn_plans.py` made: of cuDNN 9.19, which
PyTorch 2.11 brings, and of the newest. Without it this is skipped: a folder is a download of 1 GB.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from minialex_cuda.runtime.cudnn import Convolutions, Plans, Ready, Timed
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
    assert len(found) == 3 * 14 + 2 * 5  # with bias and ReLU in bfloat16 and tf32, too
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
    assert found.workspace(ASKED) is None
    assert loaded == ["nvrtc", "cublas"]  # before the handle


def test_a_convolution_without_a_plan_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, loaded: list[str]
) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", Frontend(library=True))
    with caplog.at_level(logging.WARNING, "minialex"):
        found = Convolutions()
        assert not caplog.records
        assert found.workspace(ASKED) is None
        assert found.workspace(ASKED) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "no plan for Convolution(kind='fprop'" in record.getMessage()
    assert "(no engine fits): it is computed with im2col" in record.getMessage()


def test_every_stream_has_a_handle_of_its_own(monkeypatch: pytest.MonkeyPatch, loaded: list[str]) -> None:
    frontend = Frontend(library=True)
    monkeypatch.setitem(sys.modules, "cudnn", frontend)
    found = Convolutions()
    assert frontend.streams == {}  # one handle plans, and no work is asked of it
    assert found.handle(70) != found.handle(80)
    assert set(frontend.streams.values()) == {70, 80}


class Graph:
    """Five plans; the first is deselected, the last cannot be made ready."""

    def __init__(self) -> None:
        self.executed: list[int] = []

    def get_execution_plan_count(self) -> int:
        return 5

    def get_plan_name_at_index(self, index: int) -> str:
        return f"eng{index}"

    def build_plan_at_index(self, index: int) -> None:
        if index == 0:
            raise Frontend.cudnnGraphNotSupportedError("Deselecting execution plan")
        if index == 4:
            raise RuntimeError("no room in shared memory")

    def get_workspace_size_plan_at_index(self, index: int) -> int:
        return 1000 * index

    def execute_plan_at_index(self, operands: Any, workspace: int, index: int, handle: Any) -> None:
        self.executed.append(index)
        self.operands = set(operands.values())

    def tensor(self, **options: Any) -> Any:
        return object()

    def conv_fprop(self, **options: Any) -> Any:
        return Out()

    bias = relu = conv_fprop

    def __getattr__(self, name: str) -> Any:  # validate, build_operation_graph, …
        return lambda *rest: None


class Out:
    """A result, which operands are told apart by."""

    def __init__(self) -> None:
        self.set_output = self.set_dim = self.set_stride = self.set_data_type = lambda value: self


class Planning(Frontend):
    """A module ``cudnn`` that has such plans."""

    __version__ = "1.18.0"

    def __init__(self) -> None:
        super().__init__(library=True)
        self.numerical_note = SimpleNamespace(NONDETERMINISTIC=0, WINOGRAD=1, FFT=2, TENSOR_CORE=3)
        self.heur_mode = SimpleNamespace(A=0, FALLBACK=1)
        self.graphs: list[Graph] = []

    def backend_version(self) -> int:
        return 91900

    def pygraph(self, **options: Any) -> Any:
        self.graphs.append(Graph())
        return self.graphs[-1]


class Clock:
    """Times plans, as many as have a time: the first of them in microseconds."""

    def __init__(self, *microseconds: float) -> None:
        self.microseconds, self.timed = microseconds, 0

    def __call__(self, cudnn: Any) -> Any:
        return self._time

    def _time(self, plans: Plans, most: int) -> list[Timed]:
        self.timed += 1
        ready = list(plans.ready())
        assert ready == [Ready(index, f"eng{index}", 1000 * index) for index in (1, 2, 3)]
        if not self.microseconds:
            raise MemoryError
        return [Timed(one, taken) for one, taken in zip(ready[:most], self.microseconds, strict=False)]


class Losing(Clock):
    """No plan lets through what is no number."""

    def _time(self, plans: Plans, most: int) -> list[Timed]:
        return []


@pytest.mark.parametrize(
    ("microseconds", "taken"), [((100, 98, 97.5), 1), ((100, 98, 96.5), 3), ((100, 60, 61), 2), ((100, 130, 101), 1)]
)
def test_the_quickest_plan_is_taken_and_stays(
    monkeypatch: pytest.MonkeyPatch, loaded: list[str], tmp_path: Path, microseconds: tuple[float, ...], taken: int
) -> None:
    """cuDNN's own choice unless another is more than 3 % quicker; once for a machine, and scratch memory to match."""
    monkeypatch.setitem(sys.modules, "cudnn", frontend := Planning())
    clock = Clock(*microseconds)
    found = Convolutions("a card", tmp_path, clock)
    assert found.workspace(ASKED) == 1000 * taken
    found.run(1, ASKED, 2, 3, 4, 5)
    assert frontend.graphs[-1].executed == [taken]  # of the last graph, of which only this plan was made ready
    assert found.workspace(ASKED) == 1000 * taken
    assert [clock.timed] == [1]
    other = Clock(1, 1000, 1000)  # another process, to which another plan would seem the quickest
    again = Convolutions("a card", tmp_path, other)
    assert again.workspace(ASKED) == 1000 * taken
    assert [other.timed] == [0]
    assert Convolutions("another card", tmp_path, other).workspace(ASKED) == 1000
    assert [other.timed] == [1]


def test_a_bias_is_left_to_a_kernel_where_no_plan_will_do(
    monkeypatch: pytest.MonkeyPatch, loaded: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No plan lets through what is no number, or there is no memory to see: said, and so for all runs that follow."""
    monkeypatch.setitem(sys.modules, "cudnn", Planning())
    fused = replace(ASKED, bias=True, rectify=True, precision="bfloat16")
    for clock in (Losing(), Clock(100, 1, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "minialex"):
            found = Convolutions("a card", tmp_path, clock)
            assert found.workspace(fused) is None
            assert found.workspace(fused) is None
        (record,) = caplog.records
        assert "(each of them loses NaN values, or does not run): bias and ReLU run as a" in record.getMessage()
    other = replace(fused, N=2)
    assert Convolutions("a card", tmp_path, Clock()).workspace(other) is None
    assert Convolutions("a card", tmp_path, Clock(100, 1, 1)).workspace(other) is None


def test_a_bias_untimed_is_tried_once(monkeypatch: pytest.MonkeyPatch, loaded: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", frontend := Planning())
    fused = replace(ASKED, bias=True, rectify=True, precision="tf32")
    found = Convolutions("a card", None, clock := Clock(100, 1, 1))
    assert found.workspace(fused) == 1000
    assert [clock.timed] == [1]
    found.run(1, fused, 2, 3, 4, 5, 6)
    assert frontend.graphs[-1].executed == [1]
    assert frontend.graphs[-1].operands == {2, 3, 4, 6}


def test_untimed_cudnns_own_choice_is_taken(monkeypatch: pytest.MonkeyPatch, loaded: list[str]) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", Planning())
    clock = Clock(100, 1, 1)
    assert Convolutions("a card", None, clock).workspace(ASKED) == 1000
    assert not clock.timed


def test_without_memory_to_time_it_that_is_the_choice_and_said(
    monkeypatch: pytest.MonkeyPatch, loaded: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays, as every choice: a run that is resumed with more memory goes on with the same bits."""
    monkeypatch.setitem(sys.modules, "cudnn", Planning())
    for clock in (Clock(), Clock(100, 1, 1)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "minialex"):
            assert Convolutions("a card", tmp_path, clock).workspace(ASKED) == 1000
        assert "for lack of memory" in caplog.text
        assert f"remove its file in {tmp_path}" in caplog.text


def test_a_plan_that_is_gone_is_said(
    monkeypatch: pytest.MonkeyPatch, loaded: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "cudnn", Planning())
    Convolutions("a card", tmp_path, Clock(100, 50, 100)).workspace(ASKED)
    (file,) = tmp_path.iterdir()
    for gone in ("eng4", "eng9"):  # cannot be made ready, is not there
        file.write_text(file.read_text(encoding="utf-8").replace('"plan": "eng2"', f'"plan": "{gone}"'), "utf-8")
        caplog.clear()
        with caplog.at_level(logging.WARNING, "minialex"):
            assert Convolutions("a card", tmp_path, Clock()).workspace(ASKED) == 1000
        assert f"no longer offers plan {gone}" in caplog.text
        file.write_text(file.read_text(encoding="utf-8").replace(f'"plan": "{gone}"', '"plan": "eng2"'), "utf-8")
