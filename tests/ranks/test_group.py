"""The fixed tree: the bits of a sum depend on the number of shards, and not on who added up what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minialex.ranks import group
from minialex.ranks.group import ALONE, RunningSum, admissible

Together = Callable[..., list[Any]]


def add_up(parts: list[Any], add: Any = lambda a, b: a + b) -> Any:
    running: RunningSum[Any] = RunningSum(len(parts), add)
    return [running.push(part) for part in parts][-1]


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        (1, "a"),
        (2, "(ab)"),
        (3, "((ab)c)"),
        (4, "((ab)(cd))"),
        (6, "(((ab)(cd))(ef))"),
        (8, "(((ab)(cd))((ef)(gh)))"),
        (12, "((((ab)(cd))((ef)(gh)))((ij)(kl)))"),
    ],
)
def test_the_order_is_written_down(parts: int, wanted: str) -> None:
    assert add_up(list("abcdefghijkl"[:parts]), lambda a, b: f"({a}{b})") == wanted


def test_admissible_numbers_of_ranks() -> None:
    assert {n: admissible(n) for n in (1, 2, 4, 6, 8, 9, 12)} == {
        1: (1,), 2: (1, 2), 4: (1, 2, 4), 6: (1, 3, 6), 8: (1, 2, 4, 8), 9: (1, 9), 12: (1, 3, 6, 12),
    }  # fmt: skip


def test_few_parts_wait() -> None:
    alive = most = 0

    def add(a: int, b: int) -> int:
        nonlocal alive
        alive -= 1
        return a + b

    running: RunningSum[int] = RunningSum(64, add)
    for _ in range(64):
        alive += 1
        most = max(most, alive)
        total = running.push(1)
    assert (total, most) == (64, 7)


@given(
    shards=st.sampled_from([1, 2, 3, 4, 6, 8, 12]),
    seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "float64"]),
    shapes=st.lists(st.sampled_from([(), (1,), (3,), (2, 5), (4, 3, 2, 2)]), min_size=1, max_size=4),
    chunk=st.sampled_from([1, 7, 1 << 22]),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_any_admissible_number_of_ranks_gives_the_same_bits(
    together: Together, shards: int, seed: int, dtype: str, shapes: list[Any], chunk: int, data: st.DataObject
) -> None:
    ranks = data.draw(st.sampled_from(admissible(shards)))
    random = np.random.default_rng(seed)
    parts = [
        [np.asarray(random.standard_normal(shape) * 10.0 ** random.integers(-6, 7), dtype) for shape in shapes]
        for _ in range(shards)
    ]
    wanted = [add_up(list(same)) for same in zip(*parts, strict=True)]
    own = shards // ranks

    def work(of: Any) -> list[Any]:
        mine = parts[of.rank * own : (of.rank + 1) * own]
        sums = [np.array(add_up(list(same))) for same in zip(*mine, strict=True)]
        of.sum(sums, sums)
        return sums

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group, "CHUNK", chunk)
        for found in together(ranks, work):
            for array, other in zip(found, wanted, strict=True):
                assert array.tobytes() == np.asarray(other).tobytes()


def test_the_order_of_ranks_matters_so_the_tree_is_not_an_accident(together: Together) -> None:
    values = np.float32([1, 2**-24, 2**-24, 2**-24])  # pairwise: 1 + 2^-23 and no less
    parts = [np.array([value]) for value in values]

    def work(of: Any) -> float:
        mine = parts[of.rank].copy()
        of.sum([mine], [mine])
        return float(mine[0])

    assert together(4, work) == [1 + 2**-23] * 4
    assert float(values.cumsum()[-1]) == 1.0


def test_values_that_are_not_finite_flow_on(together: Together) -> None:
    def work(of: Any) -> float:
        mine = np.array([np.float32(3e38)])
        of.sum([mine], [mine])
        return float(mine[0])

    assert together(2, work) == [np.inf] * 2


def test_alone_everything_is_what_was_given() -> None:
    x, y = np.ones(3), np.zeros(3)
    ALONE.sum([x], [y])
    assert y.tolist() == [1, 1, 1]
    assert ALONE.exchange({"a": 1}) == [{"a": 1}]
    assert ALONE.broadcast("b", {"x": x}) == ("b", {"x": x})
    assert (ALONE.rank, ALONE.size, ALONE.engine, ALONE.places) == (0, 1, "", ())
