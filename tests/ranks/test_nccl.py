"""Sums over ranks by NCCL: the CUDA backend on pretend devices, whose ranks are threads of one process.

What NCCL itself is asked for is in `tests/cuda/runtime/test_nccl.py`.
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.engine.schedule import EpochRates
from minialex.ranks.group import bound
from minialex_cuda import CudaBackend
from minialex_cuda.compiler.compiled import Step
from minialex_cuda.runtime.fake import FakeRuntime

spec = importlib.util.spec_from_file_location("shards", Path(__file__).parent / "test_shards.py")
assert spec is not None
assert spec.loader is not None
shards = importlib.util.module_from_spec(spec)
spec.loader.exec_module(shards)
opened, train = shards.opened, shards.train

TINY = shards.SMALL.replace(kernels=[4, 8, 8, 8, 8], features=[8, 8])


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


@pytest.mark.parametrize("columns", [1, 2])
def test_one_two_and_four_ranks_give_the_same_bits(together: Any, columns: int) -> None:
    recipe = TINY.replace(shards=4, columns=columns)
    made: list[Joined] = []

    def work(group: Any) -> Any:
        made.append(Joined(group))
        backend = CudaBackend(runtime=made[-1])
        session = opened(recipe, backend, group, ("cuda:0",) * columns)
        assert isinstance(session.step("train", recipe.batch_size // group.size), Step), "it is not compiled whole"
        return train(session)

    alone = opened(recipe, CudaBackend(runtime=FakeRuntime()), placement=("cuda:0",) * columns)
    wanted, _ = train(alone)
    for size in (2, 4):
        made.clear()
        results = together(size, work)
        assert {sha for sha, _ in results} == {wanted}, f"{size} ranks"
        asked = 2 * columns * shards.STEPS  # a bucket a column, there and back
        assert [runtime.asked for runtime in made] == [asked] * size


def test_columns_on_two_devices_have_a_communicator_each(together: Any) -> None:
    recipe = TINY.replace(shards=2, columns=2)
    places = ("cuda:0", "cuda:1")
    wanted, _ = train(opened(recipe, CudaBackend(runtime=FakeRuntime()), placement=places))

    def work(group: Any) -> Any:
        backend = CudaBackend(runtime=Joined(group))
        found = train(opened(recipe, backend, group, places))[0], sorted(backend._nccl._joined)
        backend._nccl.close()
        assert not backend._nccl.is_used
        return found

    assert together(2, work) == [(wanted, ["cuda:0", "cuda:1"])] * 2


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_own_sums_are_within_the_bound(together: Any, dtype: str) -> None:
    """Of one step without momentum or decay: weights differ by the rate times the bound, and the update's roundings."""
    recipe = TINY.replace(shards=4, dtype=dtype, momentum=0.0, weight_decay=0.0)
    images, labels = np.random.default_rng(0).integers(0, 256, (8, 3, 22, 22)).astype(np.uint8), np.arange(8) % 5

    def weights(how: str) -> Any:
        def work(group: Any) -> Any:
            session = opened(recipe.replace(sum=how), CudaBackend(runtime=Joined(group)), group, ("cuda:0",))
            before, own = session.weights(), slice(2 * group.rank, 2 * group.rank + 2)
            session.train(images[own], labels[own], 0, EpochRates(1.0, 0.1, {}))
            return before, session.weights()

        return together(4, work)

    fixed, engine = weights("fixed"), weights("engine")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(engine[0][1].values(), engine[3][1].values(), strict=True))
    u = np.finfo(dtype).eps / 2
    for name, before in fixed[0][0].items():
        one, other = fixed[0][1][name], engine[0][1][name]
        # Σ|g| is not known here; a gradient's own magnitude times a hundred is far more than it is
        scale = 100 * np.abs(one.astype(np.float64) - before).max() + np.finfo(dtype).tiny
        allowed = float(bound(4, np.array([scale]))[0]) / np.finfo(np.float64).eps * np.finfo(dtype).eps
        assert np.abs(one - other).max() <= allowed + 2 * u * np.abs(before).max(), name


def test_without_nccl_on_all_the_hosts_carry_it(together: Any, caplog: pytest.LogCaptureFixture) -> None:
    recipe = TINY.replace(shards=2)
    wanted, _ = train(opened(recipe, CudaBackend(runtime=FakeRuntime()), placement=("cuda:0",)))

    def work(group: Any) -> Any:
        runtime = Joined(group) if group.rank else FakeRuntime()
        return train(opened(recipe, CudaBackend(runtime=runtime), group, ("cuda:0",)))[0]

    with caplog.at_level(logging.WARNING, "minialex"):
        assert together(2, work) == [wanted] * 2
    told = [record.getMessage() for record in caplog.records if "NCCL" in record.getMessage()]
    assert told == [
        "gradients are summed through the hosts, which is slower: not every rank has NCCL; pip install 'minialex[nccl]'"
    ]
