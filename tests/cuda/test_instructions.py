"""Instructions of every kernel on the full network's shapes: none issues more than the committed table says.

Needs numba-cuda, as `test_compile` does. The interpreter of PTX that counts is itself compared with the same kernels
run on the processor.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex_cuda import CudaBackend
from minialex_cuda.ops import channels_last, norm_pool_words
from minialex_cuda.runtime.array import Flat
from minialex_cuda.runtime.fake import FakeRuntime
from minialex_cuda.runtime.kernel import KERNELS, Kernel

if not os.environ.get("MINIALEX_REQUIRE_CUDA_COMPILER"):
    pytestmark = pytest.mark.skipif(find_spec("numba_cuda") is None, reason="numba-cuda is not installed")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def instructions(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import instructions

    return instructions


def test_no_kernel_issues_more_than_the_table_says(instructions: Any) -> None:
    found = instructions.counted()
    assert {name for name in found if not name.startswith("lesson")} == set(KERNELS)
    table = json.loads(instructions.TABLE.read_text(encoding="utf-8"))
    told = instructions.faults(found, table)
    assert not told, "\n".join([*told, "if it must be so: python benchmarks/instructions.py --write"])
    assert max(entry["registers"] for entry in found.values()) <= 128


def test_what_is_worse_is_told(instructions: Any) -> None:
    name = next(iter(KERNELS))
    table = {name: {"per_value": 100.0, "registers": 30, "spills": 0}, "gone": {"per_value": 1, "registers": 1}}
    assert instructions.faults({name: table[name] | {"per_value": 109.0}}, {name: table[name]}) == []
    grown = instructions.faults({name: {"per_value": 111.0, "spills": 4}, "new": {"per_value": 1, "spills": 0}}, table)
    assert len(grown) == 4, grown


def run_both_ways(instructions: Any, monkeypatch: pytest.MonkeyPatch, work: Any) -> int:
    """Do some work on pretend devices; every launch's PTX is interpreted, too, and must write the same numbers."""
    import ptx

    original, done = FakeRuntime.launch, []

    def launch(self: Any, stream: Any, kernel: Kernel, count: Any, arguments: Any, touched: Any = None) -> None:
        one = instructions.Launch(kernel, count, tuple(arguments), frozenset())
        program, memory = ptx.Program(instructions.compiled(one)), ptx.Memory()
        passed: list[Any] = [] if isinstance(count, instructions.Grid) else [count]
        copies = {}
        for position, argument in enumerate(arguments):
            if isinstance(argument, Flat):
                copies[position] = argument.raw.copy()
                passed.append((memory.add(copies[position]), argument.raw.size, argument.raw.itemsize))
                copies[position] = memory.regions[-1].numbers
            else:
                passed.append(argument)
        blocks, threads, shared = instructions.grid_of(one)
        for block in np.ndindex(*blocks):
            ptx.Block(program, instructions.parameters_of(passed), memory, block, threads, blocks, shared).run()
        original(self, stream, kernel, count, arguments, touched)
        for position in kernel.writes:
            mine, its = copies[position], arguments[position].raw
            if mine.dtype == np.uint64:  # bfloat16: one in the last place where powers are approximate
                mine, its = mine.view(np.uint16).astype(np.int64), its.view(np.uint16).astype(np.int64)
                assert np.abs(mine - its).max() <= 1, kernel
            else:
                np.testing.assert_allclose(mine, its, rtol=2e-6, atol=1e-6, err_msg=kernel.name)
        done.append(kernel.name)

    monkeypatch.setattr(FakeRuntime, "launch", launch)
    work()
    return len(done)


def test_the_interpreter_computes_what_the_processor_does(instructions: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = CudaBackend(runtime=FakeRuntime())
    on, random = backend.place("cuda:0"), np.random.default_rng(1)

    def work() -> None:
        x = np.maximum(random.standard_normal((1, 7, 5, 8)), 0).astype(np.float32)
        half = (x.view(np.uint32) >> 16).astype(np.uint16)
        numbers = {"window": 5, "k": 2.0, "alpha": 0.1, "beta": 0.75, "size": 3, "stride": 2}
        for maps in (x, half):
            there = backend.to_device(maps, "cuda:0")
            y, where = norm_pool_words.norm_pool(on, there, ceil=True, **numbers)
            norm_pool_words.norm_pool_backward(on, y, there, where, rectify=True, **numbers)
        channels_last.to_first(on, y)
        first = backend.to_device(random.standard_normal((2, 3, 6, 5)).astype(np.float32), "cuda:0")
        backend.max_pool2d(first, size=3, stride=2, ceil=True)
        backend.local_response_norm(first, size=5, k=2.0, alpha=0.1, beta=0.75)

    assert run_both_ways(instructions, monkeypatch, work) == 7
