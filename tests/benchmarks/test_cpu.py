"""The comparison with PyTorch on a CPU says what is missing before it measures anything."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

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
def test_the_allocator_that_was_recorded_must_be_here(
    cpu: ModuleType, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "count_images", lambda _: 1)
    with pytest.raises(SystemExit, match="error: no allocator was chosen yet"):
        cpu.main(["--only", part])
    environments = {"some": {"LD_PRELOAD": "libnowhere_malloc.so.9"}}
    cpu.RESULTS.write_text(json.dumps({"allocators": {"fastest": "some", "environments": environments}}))
    with pytest.raises(SystemExit, match=r"error: PyTorch was fastest with libnowhere_malloc\.so\.9, which is not"):
        cpu.main(["--only", part])


def test_the_data_must_be_here(cpu: ModuleType, tmp_path: Path) -> None:
    for words in ([], ["--only", "epoch"]):
        with pytest.raises(SystemExit, match=r"error: .*nowhere"):
            cpu.main([*words, "--data", f"cifar10:{tmp_path / 'nowhere'}"])
