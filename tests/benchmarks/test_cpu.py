"""The comparison with PyTorch on a CPU says what is missing before it measures anything."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModuleType:
    """The program, which fails as soon as it measures."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    module = importlib.import_module("cpu")
    monkeypatch.setattr(module, "RESULTS", tmp_path / "cpu.json")
    monkeypatch.setattr(module, "Server", lambda *_: pytest.fail("it measures"))
    return module


@pytest.mark.parametrize("part", ["train", "infer", "epoch", "parts", "engines-infer-1"])
def test_the_allocator_is_the_fastest_of_those_that_are_here(
    cpu: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, dict[str, str]]] = []

    def measure(self: Any, *_: Any) -> dict[str, Any]:
        done.append((part, self.tuned))
        return {"sides": {}}

    def choose(self: Any) -> dict[str, Any]:
        done.append(("allocators", {}))
        return found

    def allocators(**environments: dict[str, str]) -> dict[str, Any]:
        sides = {name: {"low": seconds} for seconds, name in enumerate(environments)}
        return {"fastest": next(iter(environments)), "environments": environments, "sides": sides}

    monkeypatch.setattr(cpu, "count_images", lambda _: 1)
    monkeypatch.setattr(cpu.Benchmark, "engines" if part.startswith("engines") else part, measure)
    monkeypatch.setattr(cpu.Benchmark, "allocators", choose)
    monkeypatch.setattr(cpu.page, "main", lambda: None)
    gone, slow, slower = {"LD_PRELOAD": "libnowhere_malloc.so.9"}, {"MALLOC_TOP_PAD_": "1"}, {"MALLOC_TOP_PAD_": "2"}
    found = allocators(gone=gone, slow=slow, slower=slower)
    cpu.main(["--only", part])
    assert done == [("allocators", {}), (part, slow)], "none was known: they are measured first"
    done.clear()
    cpu.main(["--only", part])
    assert done == [(part, slow)]
    assert json.loads(cpu.RESULTS.read_text())[part]["recorded"]["allocator"] == "slow"
    done.clear()
    cpu.RESULTS.write_text(json.dumps({"allocators": allocators(gone=gone)}))
    cpu.main(["--only", part])
    assert done == [("allocators", {}), (part, slow)], "none that is known is here"


def test_the_data_must_be_here(cpu: ModuleType, tmp_path: Path) -> None:
    for words in ([], ["--only", "epoch"]):
        with pytest.raises(SystemExit, match=r"error: .*nowhere"):
            cpu.main([*words, "--data", f"cifar10:{tmp_path / 'nowhere'}"])


ALLOCATORS = {"allocators": {"environments": {"plain": {}}, "sides": {"plain": {"low": 1.0}}}}


class Answers:
    """A side that answers at once: probabilities, or seconds."""

    probabilities: ClassVar[dict[str, list[list[float]]]] = {}

    def __init__(self, side: str, threads: int, environment: dict[str, str] | None) -> None:
        self.side, self.environment = side, environment

    def ask(self, do: str, **asked: Any) -> Any:
        return self.probabilities.get(self.side, [[0.2, 0.3, 0.5]]) if do == "check" else 1.0

    def close(self) -> None:
        pass


def test_an_engine_that_is_not_installed_is_left_out(cpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "Server", Answers)
    monkeypatch.setattr(cpu, "find_spec", lambda name: None if name in ("openvino", "jax") else object())
    monkeypatch.setattr(cpu.shutil, "which", lambda name: None)
    benchmark = cpu.Benchmark(2, "", ALLOCATORS)
    found = benchmark.engines("infer", 1)
    assert set(found["sides"]) == {cpu.OURS, cpu.ONNXRUNTIME}
    assert found["left out"] == {
        cpu.OPENVINO: "openvino is not installed", cpu.COMPILED: "there is no C++ compiler",
    }  # fmt: skip
    found = benchmark.engines("train", 32)
    assert set(found["sides"]) == {cpu.OURS}
    assert found["left out"][cpu.JAX] == "jax is not installed"


def test_another_network_is_not_timed(cpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "Server", Answers)
    monkeypatch.setattr(cpu, "missing", lambda side: "")
    monkeypatch.setattr(cpu, "in_turn", lambda *_, **__: pytest.fail("it is timed"))
    monkeypatch.setattr(Answers, "probabilities", {cpu.OPENVINO: [[0.2, 0.302, 0.498]]})
    with pytest.raises(SystemExit, match=r"error: 'openvino' is not the same network: .* differ by 0\.002"):
        cpu.Benchmark(2, "", ALLOCATORS).engines("infer", 1)
    monkeypatch.setattr(Answers, "probabilities", {cpu.OPENVINO: [[0.2, float("nan"), 0.5]]})
    with pytest.raises(SystemExit, match="not the same network"):
        cpu.Benchmark(2, "", ALLOCATORS).engines("infer", 1)
    monkeypatch.setattr(Answers, "probabilities", {cpu.OURS: [[0.25] * 4]})
    with pytest.raises(SystemExit, match="all the same"):
        cpu.Benchmark(2, "", ALLOCATORS).engines("infer", 1)


def test_a_part_is_recorded_beside_the_others_of_this_processor(
    cpu: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "Server", Answers)
    monkeypatch.setattr(cpu, "missing", lambda side: "not here")
    monkeypatch.setattr(cpu.page, "main", lambda: None)
    other = cpu.RESULTS.parent / "other.json"
    other.write_text("{}")
    cpu.RESULTS.write_text(json.dumps({**ALLOCATORS, "train": {"kept": True}}))
    cpu.main(["--only", "engines-infer-1"])
    found = json.loads(cpu.RESULTS.read_text())
    assert found["train"] == {"kept": True}
    assert found["engines-infer-1"]["sides"][cpu.OURS]["median"] == 1.0
    assert found["engines-infer-1"]["recorded"]["command"] == "python benchmarks/cpu.py --only engines-infer-1"
    assert other.read_text() == "{}"


def test_a_goal_below_our_floor_is_said_to_be_out_of_reach(cpu: ModuleType) -> None:
    def recorded(ours: float, theirs: float, floor: float) -> list[str]:
        sides = {side: {"median": seconds} for side, seconds in (("minialex", ours), ("openvino", theirs))}
        works = {"minialex": [["fc6", "forward", ours, floor, []]], "pytorch": [], "pytorch-tuned": []}
        results = {"engines-infer-1": {"sides": sides}, "parts": {"parts": {"infer-1": works}}}
        return list(cpu.page.out_of_reach(results))

    assert recorded(0.012, 0.012, floor=0.011) == [
        "Inference, batch 1: to be 1.3 times as fast as OpenVINO ours would have to take 9.23 ms, and its floor is "
        "[11.0 ms](#where-the-time-goes)."
    ]
    assert not recorded(0.012, 0.012, floor=0.009), "it could be faster"
    assert not recorded(0.008, 0.012, floor=0.011), "it is fast enough"
