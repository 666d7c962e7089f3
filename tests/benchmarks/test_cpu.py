"""The comparison with PyTorch on a CPU says what is missing before it measures anything."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

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


@pytest.mark.parametrize("part", ["train", "infer", "epoch", "parts"])
def test_the_allocator_is_the_fastest_of_those_that_are_here(
    cpu: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, dict[str, str]]] = []

    def measure(self: Any) -> dict[str, Any]:
        done.append((part, self.tuned))
        return {}

    def choose(self: Any) -> dict[str, Any]:
        done.append(("allocators", {}))
        return found

    def allocators(**environments: dict[str, str]) -> dict[str, Any]:
        sides = {name: {"low": seconds} for seconds, name in enumerate(environments)}
        return {"fastest": next(iter(environments)), "environments": environments, "sides": sides}

    monkeypatch.setattr(cpu, "count_images", lambda _: 1)
    monkeypatch.setattr(cpu.Benchmark, part, measure)
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
