"""Sums over ranks by NCCL: the CUDA backend on pretend devices, whose ranks are threads of one process.

What NCCL itself is asked for is in `tests/cuda/runtime/test_nccl.py`, a whole training step in `tests/gpu`.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest

from minialex.backend.program import ArrayName, Call, CompiledStep, Program, Value
from minialex.backend.recorder import interpret
from minialex.engine.halves import compile_halves
from minialex.ranks.group import ALONE, RunningSum, apart, bound
from minialex_cuda import CudaBackend
from minialex_cuda.compiler.compiled import Step
from minialex_cuda.runtime.fake import FakeRuntime

SHAPES: tuple[tuple[int, ...], ...] = ((), (3,), (5, 7), (4, 3, 2, 2), (1001,))


class Communicator:
    def check(self) -> None:
        """All is well."""

    def close(self) -> None:
        """Free."""


class Joined(FakeRuntime):
    """Pretend devices that send each other numbers: `group` does."""

    has_nccl = True

    def __init__(self, group: Any) -> None:
        super().__init__()
        self.group, self.asked = group, 0

    def nccl_id(self) -> tuple[int, ...]:
        return (self.group.rank,) * 128

    def communicator(self, device: str, size: int, ident: Any, rank: int) -> Communicator:
        assert list(ident) == [0] * 128
        assert (size, rank) == (self.group.size, self.group.rank)
        return Communicator()

    def exchange(self, stream: Any, communicator: Any, sends: Any, receives: Any) -> None:
        def work() -> None:
            self.asked += 1
            told = self.group._all([(peer, flat.raw.copy()) for flat, peer in sends])
            coming = {rank: iter([x for peer, x in sent if peer == self.group.rank]) for rank, sent in enumerate(told)}
            for flat, peer in receives:
                flat.raw[...] = next(coming[peer])
            assert all(next(rest, None) is None for rest in coming.values())

        stream.do("exchange", work, [flat for flat, _ in sends], [flat for flat, _ in receives])

    def all_reduce(self, stream: Any, communicator: Any, pairs: Any) -> None:
        def work() -> None:
            self.asked += 1
            told = self.group._all([flat.raw.copy() for flat, _ in pairs])
            for number, (_, out) in enumerate(pairs):
                out.raw[...] = np.cumsum([sent[number] for sent in told], axis=0, dtype=out.raw.dtype)[-1]

        stream.do("all_reduce", work, [a for a, _ in pairs], [b for _, b in pairs])


def recorded(group: Any, how: str, devices: tuple[str, ...], dtype: str) -> Program:
    """Arrays that are doubled, summed over the ranks, in a bucket a column, and then scaled by one."""
    calls, fed, outputs = [], {}, {}
    for column, device in enumerate(devices):
        doubled, sums = [], []
        for number, shape in enumerate(SHAPES):
            x, twice, total, done = (
                Value(100 * column + 10 * number + n, shape, np.dtype(dtype), device) for n in range(4)
            )
            fed[ArrayName(str(number), column=column, role="x")] = x
            outputs[ArrayName(str(number), column=column, role="y")] = done
            doubled.append(twice)
            sums.append(total)
            calls.append(Call("scale", (x, 2.0), {}, (twice,), "fc8", column, "backward"))
        given = {"group": group, "how": how}
        calls.append(Call("sum_over_ranks", (doubled,), given, tuple(sums), "fc8", column, "reduce"))
        for total, done in zip(sums, list(outputs.values())[-len(sums) :], strict=True):
            calls.append(Call("scale", (total, 1.0), {}, (done,), "fc8", column, "update"))
    return Program({}, fed, (), tuple(calls), outputs)


def drawn(rank: int, call: int, column: int, number: int, dtype: str) -> Any:
    random = np.random.default_rng([rank, call, column, number])
    return np.asarray(random.standard_normal(SHAPES[number]) * 10.0 ** random.integers(-6, 7), dtype)


def run(backend: CudaBackend, step: CompiledStep, program: Program, rank: int, dtype: str) -> list[dict[Any, Any]]:
    """Three calls: by itself, captured, replayed."""
    found = []
    for call in range(3):
        feed = {
            name: backend.to_device(drawn(rank, call, name.column, int(name.layer), dtype), value.device)
            for name, value in program.fed.items()
        }
        found.append({name: backend.to_numpy(array) for name, array in step(feed).items()})
    return found


def check(size: int, dtype: str, how: str, results: Any) -> None:
    for told in results:
        for call, outputs in enumerate(told):
            for name, found in outputs.items():
                parts = [2 * drawn(r, call, name.column, int(name.layer), dtype) for r in range(size)]
                running: RunningSum[Any] = RunningSum(size, lambda a, b: a + b)
                wanted = [running.push(part) for part in parts][-1]
                limit = bound(size, np.abs(parts).sum(axis=0)) if how == "engine" else np.zeros_like(wanted)
                assert (np.abs(found - wanted) <= limit).all(), (call, name)


@pytest.mark.parametrize("devices", [("cuda:0",), ("cuda:0", "cuda:0"), ("cuda:1", "cuda:0")], ids=str)
@pytest.mark.parametrize("how", ["fixed", "engine"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_any_number_of_ranks(together: Any, dtype: str, how: str, devices: tuple[str, ...]) -> None:
    """The bits of the fixed order, or within the bound; as one step, captured where it is on one device."""

    def work(group: Any) -> Any:
        runtime = Joined(group)
        backend, program = CudaBackend(runtime=runtime), recorded(group, how, devices, dtype)
        step = backend.compile_step(program, {})
        assert isinstance(step, Step), "it is not compiled whole"
        found = run(backend, step, program, group.rank, dtype)
        assert runtime.asked == 3 * len(devices) * (2 if how == "fixed" else 1)
        assert (step._graph is not None) == (len(set(devices)) == 1)
        assert sorted(backend._nccl._joined) == sorted(set(devices))
        backend._nccl.close()
        assert not backend._nccl.is_used
        return found

    for size in (2, 3, 4, 8):
        check(size, dtype, how, together(size, work))


def test_without_nccl_on_all_the_hosts_carry_it(together: Any, caplog: pytest.LogCaptureFixture) -> None:
    def work(group: Any) -> Any:
        backend = CudaBackend(runtime=Joined(group) if group.rank else FakeRuntime())
        program = recorded(group, "fixed", ("cuda:0",), "float32")
        assert backend.compile_step(program, {}) is None
        step = compile_halves(backend, program, {})
        assert step is not None
        return run(backend, step, program, group.rank, "float32")

    with caplog.at_level(logging.WARNING, "minialex"):
        check(2, "float32", "fixed", together(2, work))
    told = [record.getMessage() for record in caplog.records if "NCCL" in record.getMessage()]
    assert told == [
        "gradients are summed through the hosts, which is slower: not every rank has NCCL; pip install 'minialex[nccl]'"
    ]


def test_who_is_alone_asks_nobody() -> None:
    """Memory is tried out by a rank that for a while does as if it were alone."""

    class Two:
        rank, size = 1, 2

    for group in (ALONE, apart(Two())):  # type: ignore[arg-type]
        backend = CudaBackend(runtime=Joined(None))
        program = recorded(group, "fixed", ("cuda:0",), "float32")
        assert backend.compile_step(program, {}) is None
        assert interpret(program, backend, {}) is not None
        assert not backend._nccl.is_used
