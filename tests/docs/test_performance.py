"""docs/performance.md is what was recorded, and nothing far above its floor goes unexplained."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_page():
    spec = importlib.util.spec_from_file_location("page", ROOT / "benchmarks" / "page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = load_page()
RECORDED = {
    "command": "python benchmarks/cpu.py",
    "threads": 2,
    "machine": {"processor": "A Processor", "cores": 2, "memory_gib": 23.5, "system": "Linux"},
    "versions": {"python": "3.11", "torch": "2.13.0"},
    "date": "2026-11-25",
}


def sides(ours, installed, tuned):
    return {
        side: {"median": median, "low": 0.9 * median, "high": 1.1 * median, "seconds": [median]}
        for side, median in ((page.OURS, ours), (page.INSTALLED, installed), (page.TUNED, tuned))
    }


def synthetic():
    parts = {
        page.OURS: [
            ["conv1", "forward", 0.4, 0.3, [["relu1", "forward"]]],
            ["norm1", "forward", 0.5, 0.1, []],
            ["conv1", "backward", 0.5, 0.45, []],
            ["conv1", "update", 0.02, 0.01, []],
            ["fc8", "update", 0.02, 0.015, []],
            ["flatten", "forward", 0.001, 0.0, []],
        ],
        page.INSTALLED: [["conv1", "forward", 0.6], ["relu1", "forward", 0.1], ["norm1", "forward", 2.0],
                         ["conv1", "backward", 0.9], ["all", "update", 0.07]],
        page.TUNED: [["conv1", "forward", 0.5], ["relu1", "forward", 0.05], ["norm1", "forward", 1.0],
                     ["conv1", "backward", 0.8], ["all", "update", 0.06]],
    }  # fmt: skip
    return {
        "allocators": {
            "fastest": "jemalloc", "environments": {"jemalloc": {"LD_PRELOAD": "libjemalloc.so.2"}},
            "sides": {"jemalloc": {"median": 3.2}}, "not installed": ["tcmalloc"], "recorded": RECORDED,
        },
        "train": {
            "train-128": sides(2.0, 5.0, 3.0), "train-32": sides(0.5, 1.2, 0.9), "recorded": RECORDED,
            "memory": {
                page.OURS: {"before": 100 << 20, "peak": 1500 << 20},
                page.INSTALLED: {"before": 200 << 20, "peak": 2200 << 20},
                page.TUNED: {"before": 200 << 20, "peak": 3200 << 20},
            },
        },
        "epoch": {"epoch": sides(10.0, 42.0, 19.0), "recipe": "cifar10", "images": 20000, "recorded": RECORDED},
        "together": {
            "alone": {"median": 2.0}, "together": {"median": 2.3}, "runs": 4, "recorded": RECORDED,
        },
        "reference": {
            "train-32": {page.OURS: {"median": 0.5}, page.REFERENCE: {"median": 4.5}}, "recorded": RECORDED,
        },
        "starts": {"cold": {"median": 31.0}, "warm": {"median": 3.0}, "recorded": RECORDED},
        "parts": {"peaks": [7e10, 2.2e10], "parts": {"train-128": parts}, "recorded": RECORDED},
    }  # fmt: skip


REASONS = {"train-128": {"norm1 forward": "a power for every number"}}


def test_the_page_is_what_was_recorded():
    text = page.PAGE.read_text(encoding="utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    assert page.with_figures(text, page.render_all(page.recorded(), page.explanations())) == text


def test_ratios_stand_beside_their_goals():
    text = page.render(synthetic(), REASONS)
    assert "| training step, batch 128 | 2,000 (1,800 to 2,200) | 5,000 (4,500 to 5,500) | 3,000 (2,700 to 3,300) | " \
        "**2.50** (goal 2.2: met) | **1.50** (goal 3.5: not met) |" in text  # fmt: skip
    assert "| training step, batch 32 | 500 (450 to 550)" in text
    assert "2.40 | 1.80 |" in text, "no goal, no verdict"
    assert "**4.20** (goal 4: met) | **1.90** (goal 3.5: not met)" in text
    assert "4 runs of the small network at once" in text
    assert "take 1.15 times as long as each alone (goal: under 1.1, not met)" in text
    assert "500 ms with Numba: 9.0 times as fast." in text, "it is there to be read, and has no goal"
    assert "| minialex (Numba) | 100 | 1,500 | 1,400 |" in text
    assert "Below PyTorch's (the goal): met." in text
    assert "31.0 s with an empty cache of kernels (goal: under 6 s, not met), 3.0 s with a full one" in text
    assert "Not installed there, and not tried: tcmalloc." in text
    assert "On A Processor, 2 cores, 23.5 GiB, Linux; 2 threads on every side:" in text
    assert " | python 3.11, torch 2.13.0 |" in text


def test_other_engines_have_a_row_each_and_one_goal():
    engines = {
        page.OURS: {"median": 0.5, "low": 0.4, "high": 0.6},
        "onnxruntime": {"median": 1.0, "low": 0.9, "high": 1.1},
        "openvino": {"median": 0.6, "low": 0.5, "high": 0.7},
    }
    infer = {"sides": engines, "left out": {"pytorch-compiled": "there is no C++ compiler"}, "recorded": RECORDED}
    text = page.render({"engines-infer-128": infer}, {})
    assert "| inference, batch 128 | minialex (Numba) | 500 | 400 to 600 |  |" in text
    assert "| inference, batch 128 | ONNX Runtime | 1,000 | 900 to 1,100 | **2.00** (goal 1.3: met) |" in text
    assert "| inference, batch 128 | OpenVINO | 600 | 500 to 700 | **1.20** (goal 1.3: not met) |" in text
    assert "PyTorch, `torch.compile` was left out: there is no C++ compiler." in text
    assert "Other engines" not in page.render({"starts": synthetic()["starts"]}, {})


def test_parts_stand_beside_the_peers_and_their_floors():
    text = page.render(synthetic(), REASONS)
    assert "| conv1 forward | relu1 | 400 | 300 | 1.3 | 700 | 550 |" in text
    assert "| norm1 forward |  | 500 | 100 | **5.0** | 2,000 | 1,000 |" in text
    assert "| all update |  | 40.0 | 25.0 | 1.6 | 70.0 | 60.0 |" in text
    assert "| 1 smaller parts |" in text
    assert "- norm1 forward: a power for every number" in text


def test_a_part_far_above_its_floor_must_be_explained():
    with pytest.raises(page.Unexplained, match=r'\[train-128\] "norm1 forward"'):
        page.render(synthetic(), {})
    worse = synthetic()
    worse["parts"]["parts"]["train-128"][page.OURS][2][2] = 1.0
    with pytest.raises(page.Unexplained, match='"conv1 backward"'):
        page.render(worse, REASONS)


def test_explanations_name_parts_of_known_works():
    for work, reasons in page.explanations().items():
        assert work in page.WORKS
        for name, text in reasons.items():
            assert len(name.split()) == 2, name
            assert text


def test_nothing_recorded_is_said():
    assert page.render_all([], {}) == page.NOTHING


def test_each_processor_has_a_file_and_a_part_of_the_page_of_its_own():
    other = {"processor": "AMD EPYC (2)", "cores": 4, "system": "Linux"}
    assert page.file_of(other).name == "amd-epyc-2-4-cores.json"
    assert page.file_of(RECORDED["machine"]) != page.file_of({**RECORDED["machine"], "cores": 4})
    assert page.render_all([synthetic()], REASONS) == page.render(synthetic(), REASONS)
    second = {"train": {**synthetic()["train"], "recorded": {**RECORDED, "machine": other}}}
    text = page.render_all([synthetic(), second], REASONS)
    assert "|  | A Processor, 2 cores | AMD EPYC (2), 4 cores |" in text
    one = "**2.50** (goal 2.2: met), **1.50** (goal 3.5: not met)"
    two = "**4.20** (goal 4: met), **1.90** (goal 3.5: not met)"
    assert f"| training step, batch 128 | {one} | {one} |" in text
    assert f"| small network, one epoch of CIFAR-10 | {two} |  |" in text
    heads = [line for line in text.splitlines() if line.startswith("#")]
    assert heads[:3] == ["## All processors", "## A Processor, 2 cores", "### Times"]
    assert heads[-4:-1] == ["## AMD EPYC (2), 4 cores", "### Times", "### Memory of a training step at batch 128"]
