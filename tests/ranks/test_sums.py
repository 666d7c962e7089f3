"""Sums over ranks as MPI makes them: every backend and dtype, one to four processes, against the fixed order."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.errors import ConfigurationError
from minialex.ranks.group import ALONE, bound
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import parse

DRIVER = """
import numpy as np
from minialex.backend.operations import method
from minialex.backend.program import ArrayName, Call, Program, Value
from minialex.ranks import joining
from minialex.ranks.group import RunningSum, bound
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime
from minialex_numba import NumbaBackend
from minialex_numpy import NumpyBackend

group = joining.join()
SHAPES = ((), (3,), (5, 7), (4, 3, 2, 2), (20011,))

def drawn(rank, dtype):
    random = np.random.default_rng(rank)
    return [np.asarray(random.standard_normal(s) * 10.0 ** random.integers(-6, 7, s), dtype) for s in SHAPES]

checked = 0
for backend in (NumpyBackend(), NumbaBackend(threads=1), CudaBackend(runtime=FakeRuntime())):
    device = backend.devices[-1]
    for dtype in ("float32", "float64"):
        every = [drawn(rank, dtype) for rank in range(group.size)]
        for how in ("fixed", "engine"):
            xs = [backend.to_device(x, device) for x in every[group.rank]]
            sums = method(backend, "sum_over_ranks")(xs, group=group, how=how)
            for number, found in enumerate(backend.to_numpy(x) for x in sums):
                parts = [np.array(arrays[number]) for arrays in every]
                running = RunningSum(group.size, lambda a, b: a + b)
                wanted = [running.push(part) for part in parts][-1]
                assert found.dtype == dtype and found.shape == SHAPES[number] and sums[number].device == device
                assert (backend.to_numpy(xs[number]) == every[group.rank][number]).all(), "an operand was written"
                limit = bound(group.size, np.abs(parts).sum(axis=0)) if how == "engine" else np.zeros_like(wanted)
                assert (np.abs(found - wanted) <= limit).all(), (backend.name, dtype, how, number)
                told = group.exchange(found.tobytes().hex() if found.nbytes < 200 else hash(found.tobytes()) * 0)
                assert len(set(told)) == 1, "ranks have different sums"
                checked += 1
if group.size > 1:
    for dtype in ("float32", "float64"):  # in place, and beside other work: what compiled steps ask for
        every = [drawn(rank, dtype) for rank in range(group.size)]
        for how in ("fixed", "engine"):
            mine = [np.array(x) for x in every[group.rank]]
            mine = [x.reshape(-1) for x in mine]
            waits = [group.begin_sum([x], [x], how) for x in mine]
            assert group.exchange(group.rank) == list(range(group.size))  # on a communicator of its own
            for wait in waits:
                wait()
            for number, found in enumerate(mine):
                parts = np.array([arrays[number] for arrays in every])
                limit = 2 * bound(max(3, group.size), np.abs(parts).sum(axis=0))
                assert (np.abs(found - parts.sum(axis=0).reshape(-1)) <= limit.reshape(-1)).all()
                checked += 1
    try:
        group.sum([np.ones(3, np.float16)], [np.ones(3, np.float16)], "engine")
    except Exception as error:
        assert str(error) == "MPI does not add up float16: leave out --sum engine", error
    else:
        raise AssertionError("not refused")
if group.rank == 0:
    print(checked)
"""


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_all_backends_and_dtypes(start: Any, tmp_path: Path, ranks: int) -> None:
    (tmp_path / "sums_driver.py").write_text(DRIVER)
    process = start(ranks, "sums_driver", PYTHONPATH=_path(tmp_path))
    out, errors = process.communicate(timeout=170)
    assert process.returncode == 0, out + errors
    assert int(out) == 3 * 2 * 2 * 5 + (2 * 2 * 5 if ranks > 1 else 0)


def _path(folder: Path) -> str:
    root = Path(__file__).parents[2]
    return ":".join(map(str, (folder, root, root / "backends")))


def test_the_bound_is_that_of_any_two_orders() -> None:
    """Numbers that make two orders differ as much as can be hoped for stay below it, and half of it is too little."""
    u = np.float32(2.0**-24)
    parts = np.array([1, u, u, u, u, u, u, u], np.float32)
    left, right = np.float32(0), np.float32(0)
    for one, other in zip(parts, parts[::-1], strict=True):
        left, right = left + one, right + other
    differ = abs(float(left) - float(right))
    (limit,) = bound(8, np.abs(parts).sum(keepdims=True))
    assert 7 * u / 2 < differ <= limit
    assert bound(2, np.ones(1, np.float32)) == 0
    assert bound(1, np.ones(1)) == 0


def test_sums_that_were_begun_are_made_in_that_order_and_leave_this_thread_alone(together: Any) -> None:
    here = threading.get_ident()

    def work(group: Any) -> list[Any]:
        seen: list[tuple[int, bool]] = []
        made = group.sum

        def told(arrays: Any, out: Any, how: Any = "fixed") -> None:
            seen.append((int(arrays[0][0]), threading.get_ident() in (here, mine)))
            made(arrays, out, how)

        mine, group.sum = threading.get_ident(), told
        arrays = [np.full(1000, value, np.float32) for value in (1, 2, 3)]
        waits = [group.begin_sum([x], [x]) for x in arrays]
        for wait in reversed(waits):
            wait()
        return [seen, [float(x[0]) for x in arrays]]

    for seen, sums in together(2, work):
        assert seen == [(1, False), (2, False), (3, False)]
        assert sums == [2, 4, 6]


def test_an_engine_that_does_not_add_up_is_refused(together: Any) -> None:
    def work(group: Any) -> str:
        x = np.ones(3)
        with pytest.raises(ConfigurationError) as refused:
            group.begin_sum([x], [x], "engine")()
        return str(refused.value)

    assert together(2, work) == ["threads does not add up by itself: leave out --sum engine"] * 2
    x = np.ones(3)
    ALONE.begin_sum([x], [x], "engine")()
    assert x.tolist() == [1, 1, 1]


def test_the_recipe_says_which_sum_it_is() -> None:
    recipe = Recipe()
    assert "sum =" not in recipe.to_toml()  # as files were before there was a choice
    assert parse(recipe.replace(sum="engine").to_toml(), "a run's").sum == "engine"
    with pytest.raises(ConfigurationError, match=r"recipe field 'sum': expected one of fixed, engine, got 'fast'"):
        recipe.replace(sum="fast")


def test_a_run_with_the_engines_sums_says_so_and_goes_on(start: Any, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ("minialex", "train", "--recipe", "shapes", "--backend", "numpy", "--kernels", "4,4,4,4,4", "--features",
             "6,6", "--train-images", 16, "--validation-images", 2, "--batch-size", 8, "--out", folder)  # fmt: skip

    def ended(*given: object) -> tuple[int, str]:
        process = start(2, *given)
        _, errors = process.communicate(timeout=150)
        return process.returncode, errors

    assert ended(*words, "--epochs", 1, "--sum", "engine")[0] == 0
    assert 'sum = "engine"\n' in (folder / "recipe.toml").read_text()
    other = shutil.copytree(folder, tmp_path / "other")
    assert ended("minialex", "train", "--resume", folder, "--epochs", 2)[0] == 0
    code, said = ended("minialex", "train", "--resume", other, "--sum", "fixed")
    assert code == 4
    assert said.count("error: ") == 1, said
    assert "sum is 'fixed', was 'engine'" in said
