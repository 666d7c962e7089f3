"""What the site says of GPUs is what was recorded, and nothing says that it has not run which has."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OTHERS = (
    "device_page",
    "step_model",
    "gpu",
    "gpu_busy",
    "gpu_goals",
    "instructions",
    "ptx",
    "convolutions",
    "four_versions",
)
RATES = {"name": "NVIDIA H100 80GB HBM3", "matrix": {"bfloat16": 7e14, "tf32": 4e14}, "copy": 3e12}


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location("device_page", ROOT / "benchmarks" / "device_page.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    sys.modules["device_page"] = found
    spec.loader.exec_module(found)
    yield found
    sys.path[:] = path
    for name in OTHERS:
        sys.modules.pop(name, None)


def rows(*found: tuple[str, float, float]) -> list[dict[str, Any]]:
    return [{"name": name, "calls": calls, "microseconds": taken} for name, calls, taken in found]


def results(tuned: bool = True) -> dict[str, Any]:
    """What `gpu.py` would write: a step of 8 images in 10 ms, PyTorch in 30 and 20."""
    sides = {"minialex": 0.010, "torch.compile": 0.030, **({"torch.compile, tuned": 0.020} if tuned else {})}
    mine = rows(
        ("fprop, 48 x 57", 10, 6000.0), ("column_sums, (1, 1, 1) blocks", 15, 3000.0), ("product N·T, 4", 1, 500.0),
        ("norm5_pool_bfloat16, (1, 3)", 4, 300.0), ("norm5_pool_backward_bfloat16, (1, 3)", 4, 200.0),
        ("9 others", 20, 0.0),
    )  # fmt: skip
    theirs = rows(("void cutlass::Kernel<cutlass_fprop>", 3, 9000.0), ("triton_poi_fused_avg_pool3d_pow_1", 2, 1000.0))
    unnamed = rows(("_3cdynamic_3e::device[abi:v13][abi:x]", 10, 9000.0))
    entry = {
        "precision": "bfloat16", "batch_size": 8, "complete": True, "errors": {}, "busy": 0.97, "floor_seconds": 0.004,
        "floor_seconds_one_column": 0.005, "step": {side: {"median": taken} for side, taken in sides.items()},
        "end_to_end": {"minialex": {"images_per_second": 400.0}}, "asked": mine,
        "kernels": {side: unnamed if side == "minialex" else theirs for side in sides},
    }  # fmt: skip
    return {
        "command": "python benchmarks/gpu.py", "date": "2026-11-27", "recipe": "alexnet-2012",
        "rates": {"cuda:0": RATES},
        "machine": {"processor": "A Processor", "cores": 16, "memory_gib": 125.9}, "versions": {"torch": "2.11"},
        "entries": [entry],
    }  # fmt: skip


@pytest.fixture
def kept(page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results in the place of the recorded ones, and a reason."""
    monkeypatch.setattr(page, "RESULTS", tmp_path / "kept")
    (tmp_path / "device.toml").write_text('column_sums = "one block adds up long columns"\n', encoding="utf-8")
    monkeypatch.setattr(page, "REASONS", tmp_path / "device.toml")
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


def write(kept: Path, found: dict[str, Any]) -> None:
    (kept / "bfloat16.json").write_text(json.dumps(found), encoding="utf-8")
    (kept / "bfloat16.status").write_text("ended well after 158 s\n", encoding="utf-8")
    (kept / "proof.status").write_text("failed with 1 after 33 s\n", encoding="utf-8")
    (kept / "proof.log").write_text("...F\n=== 1 failed, 3 passed, 3 warnings in 30.6s ===\n", encoding="utf-8")
    (kept / "machine.log").write_text("| Driver Version: 580.159.04 |\nrelease 13.0, V13\n", encoding="utf-8")


def test_a_page_is_what_was_recorded(page: Any, kept: Path, tmp_path: Path) -> None:
    write(kept, results())
    out = tmp_path / "made"
    assert page.main([str(out)]) == 0
    text = (out / "gpu.md").read_text(encoding="utf-8")
    assert "A step of 8 images in bfloat16 takes 10 ms, and 20 with PyTorch, compiled." in text
    assert "| bfloat16, batch 8 | **10** | 30 | 20 | 2.00 | 800 |" in text
    assert re.search(r"\| bfloat16, batch 8 \| \*\*10\*\* \| 4 \| 40% \| 97% \| [\d.]+ \| \+\d+% \|", text)
    assert "| bfloat16, batch 8 | 400 | – | – | 50% |" in text
    assert "one NVIDIA H100 80GB HBM3, 2026-11-27; 16 cores of A Processor, 126 GiB; torch 2.11." in text
    assert "Driver 580.159.04, CUDA 13.0." in text
    assert "not been timed" not in text
    assert "| 6,000 | 10 | `fprop, 48 x 57` | convolutions |" in text, "what was asked for, where names say nothing"
    assert "`cutlass_fprop`" in text
    assert "`column_sums`: one block adds up long columns" in text
    assert (out / "step.png").read_bytes().startswith(b"\x89PNG")
    took = (out / "took.md").read_text(encoding="utf-8")
    assert took in text
    assert "| ended well | 158 s | – |" in took
    assert "| **failed with 1** | 33 s | 1 failed, 3 passed |" in took
    assert "Not run on a device yet: `machine`, `kit-float32`" in took
    assert "**has run on a device**, one NVIDIA H100 80GB HBM3 (2026-11-27), where 3 tests" in page.said(
        page.recorded()
    )
    assert "300 µs forward and 200 µs backward, 5% of" in page.norm(page.recorded())


def test_every_part_of_the_script_is_told_of(page: Any) -> None:
    script = (ROOT / "benchmarks" / "device.sh").read_text(encoding="utf-8").partition("parts='")[2].partition("'")[0]
    named = {line.split()[0]: line.split()[1] for line in script.strip().splitlines()}
    assert set(page.PARTS) == set(named)
    how = (ROOT / "docs" / "how-to" / "device.md").read_text(encoding="utf-8")
    told: set[str] = set()
    for names, limits in re.findall(r"^\| (`[^|]*) \| ([^|]*) s \|", how, re.MULTILINE):
        parts = re.findall(r"`([^`]+)`", names)
        told |= set(parts)
        if " to " not in limits:
            assert {named[part] for part in parts} == set(re.findall(r"\d+", limits)), parts
    assert told == set(named)


def test_what_is_missing_is_said(page: Any, kept: Path) -> None:
    assert page.page(page.recorded()) == page.NOTHING
    assert "not yet been run" in page.said({})
    assert "not been run" in page.norm({})
    assert page.took().startswith(page.NOTHING)
    write(kept, results(tuned=False))
    text = page.page(page.recorded())
    assert "has **not been timed on a device yet**" in text
    other = results()
    other["rates"]["cuda:0"] = {**RATES, "name": "NVIDIA A10"}
    write(kept, other)
    text = page.page(page.recorded())
    assert "Measured 10 ms" not in text, "of such a card the model knows nothing"
    assert "| 40% | 97% | – | – |" in text


def test_kinds_of_work_and_names(page: Any) -> None:
    kinds = {
        "wgrad, 48 x 57": "convolutions", "sm90_xmma_fprop_implicit_gemm_bf16": "convolutions",
        "void nhwcSliceCKernel<a>": "convolutions", "product N·T, 128": "full layers", "nvjet_sm90_tss": "full layers",
        "triton_poi_fused__to_copy_convolution_relu_3": "bias, ReLU, dropout",
        "column_sums, (1)": "bias, ReLU, dropout",
        "triton_poi_fused_max_pool2d_with_indices_backward_9": "normalisation and pooling",
        "triton_poi_fused__to_copy_constant_pad_nd_rsqrt_mul_5": "normalisation and pooling",
        "triton_poi_fused__to_copy_add_arange_constant_pad_nd_index_permute_1": "input",
        "augment_deep_bfloat16": "input", "sgd_updates_kernel, 9": "update", "something": "others",
    }  # fmt: skip
    assert {name: page.kind(name) for name in kinds} == kinds
    assert set(page.ORDER) == set(page.KINDS)
    assert page.readable("void nhwcSliceCKernel<__nv_bfloat16, float>(int)") == "nhwcSliceCKernel"
    assert (
        page.readable("_ZN17cutlass__5x6KernelINS_4ImplicitGemmConvolutionINS_1") == "cutlass ImplicitGemmConvolution"
    )
    assert len(page.readable("triton_" + 100 * "x")) == 60


def test_reasons_are_of_kernels_that_there_are() -> None:
    import tomllib

    counted = json.loads((ROOT / "benchmarks" / "results" / "instructions.json").read_text(encoding="utf-8"))
    reasons = tomllib.loads((ROOT / "benchmarks" / "results" / "device.toml").read_text(encoding="utf-8"))
    assert set(reasons) <= {*counted, "fprop", "dgrad", "wgrad", "product"}


def test_nothing_says_that_it_has_not_run_which_has(page: Any) -> None:
    """As soon as a step is recorded, nobody may say that there was no device; on two there was none."""
    assert page.entries_of(page.recorded()), "nothing is recorded: this test has to change"
    places = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    for folder, ending in (("docs", "*.md"), ("minialex", "*.py"), ("backends", "*.py"), ("benchmarks", "*.py")):
        places += [path for path in (ROOT / folder).rglob(ending) if "made" not in path.parts]
    denied = re.compile(
        r"(not|(none|nothing)( of \w+| here)? ha(s|ve))\*{0,2} (yet )?(been )?\*{0,2}(yet )?"
        r"run on a (real )?(device|gpu|card)|never run on",
        re.IGNORECASE,
    )
    allowed = {"device_page.py": 3, "one-kernel.md": 1}  # if nothing were recorded; the lesson's own four
    allowed |= {"nccl.py": 1, "many-machines.md": 1, "device.md": 1}  # NCCL, of which no run is recorded
    for path in places:
        text = " ".join(path.read_text(encoding="utf-8").split())
        assert len(denied.findall(text)) == allowed.get(path.name, 0), path
