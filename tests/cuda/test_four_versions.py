"""The page "one kernel in four versions": its kernels agree with the reference, its table is recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend.registry import load
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def four_versions(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import four_versions

    return four_versions


def test_all_four_compute_the_gradient(four_versions: Any) -> None:
    random, numbers = np.random.default_rng(0), (2.0, 0.3, 0.75)
    halves = [(3 * random.standard_normal((2, 8, 3, 5))).astype(np.float32).view(np.uint32) >> 16 for _ in range(2)]
    dy, x = ((bits << 16).astype(np.uint32).view(np.float32) for bits in halves)
    reference = load("numpy")
    k, alpha, beta = numbers
    wide_dy, wide_x = (reference.to_device(a.astype(np.float64), reference.devices[0]) for a in (dy, x))
    y, scale = reference.local_response_norm(wide_x, size=5, k=k, alpha=alpha, beta=beta)
    wanted = reference.to_numpy(
        reference.local_response_norm_backward(wide_dy, wide_x, y, scale, size=5, alpha=alpha, beta=beta)
    )
    backend = CudaBackend(runtime=FakeRuntime())
    on = backend.place("cuda:0")

    def last(array: Any) -> Any:
        return np.ascontiguousarray(array.reshape(2, 8, 15).transpose(0, 2, 1))

    with four_versions.kernels() as kernels:
        assert tuple(kernels) == four_versions.NAMES
        for name, kernel in kernels.items():
            arrays = [dy.reshape(2, 8, 15), x.reshape(2, 8, 15)] if name == "flat" else [last(dy), last(x)]
            if name == "words":
                arrays = [last(bits.astype(np.uint16)) for bits in halves]
            there = [backend.to_device(array, "cuda:0") for array in arrays]
            found = backend.to_numpy(four_versions.launch(on, kernel, *there, tuple(map(np.float32, numbers))))
            if name == "words":
                found = (found.astype(np.uint32) << 16).view(np.float32)
            expected = wanted.reshape(2, 8, 15) if name == "flat" else last(wanted)
            error = np.abs(found - expected).max() / np.abs(expected).max()
            assert error < (2**-8 if name == "words" else 2**-20), (name, error)


def test_the_pages_table_is_what_was_counted(four_versions: Any) -> None:
    table = json.loads((ROOT / "benchmarks" / "results" / "instructions.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "how-to" / "one-kernel.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \d\. [^|]+\| ([\d,]+) \| (\d+) \|", text, re.MULTILINE)
    entries = [table[f"lesson, {name}"] for name in four_versions.NAMES]
    assert rows == [(f"{round(entry['per_value']):,}", str(entry["registers"])) for entry in entries]
    first, last = rows[0][0], rows[-1][0]
    assert f"takes {first} instructions per number in\nthe first version and {last} in the last" in text
    fast = [f"{round(table[name]['per_value']):,}" for name in ("norm5_pool_bfloat16", "norm5_pool_backward_bfloat16")]
    told = re.findall(r"[\d,]*\d", text.split("norm_pool_words.py`: ")[1].split("Two more")[0])
    assert told == fast
