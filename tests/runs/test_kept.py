"""Which checkpoints stay: the last ones by number and the best, counted out, and a best one that is saved again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minialex.runs import checkpoint


def save(folder: Path, step: int, value: float, *, best: bool = False, keep: int = 2) -> None:
    arrays = {"fc8.weight": np.full((2, 2), value, np.float32)}
    momentum = {"fc8.weight": np.full((2, 2), -value, np.float32)}
    checkpoint.save(folder, step, arrays, momentum, {"step": step}, keep=keep, best=best)


def kept(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


@pytest.mark.parametrize("keep", [2, 3])
def test_the_last_ones_and_the_best(tmp_path: Path, keep: int) -> None:
    for step in range(1, 7):
        save(tmp_path, step, step, best=step in (1, 2), keep=keep)
    assert kept(tmp_path) == [2, *range(7 - keep, 7)]
    assert checkpoint.best(tmp_path).step == 2


def test_a_best_one_that_is_saved_again_is_still_the_best(tmp_path: Path) -> None:
    save(tmp_path, 5, 1.0, best=True)
    save(tmp_path, 5, 1.0)  # as at a signal after the end of an epoch
    for step in (6, 7, 8):
        save(tmp_path, step, step)
    assert kept(tmp_path) == [5, 7, 8]
    assert checkpoint.best(tmp_path).step == 5


def test_other_weights_at_the_same_step_are_not_the_best(tmp_path: Path) -> None:
    save(tmp_path, 5, 1.0, best=True)
    save(tmp_path, 5, 2.0)
    for step in (6, 7, 8):
        save(tmp_path, step, step)
    assert kept(tmp_path) == [7, 8]


def test_weights_and_momentum_are_not_exchanged(tmp_path: Path) -> None:
    save(tmp_path, 1, 3.0)
    found = checkpoint.latest(tmp_path)
    assert found is not None
    assert found.weights["fc8.weight"].tolist() == [[3, 3], [3, 3]]
    assert found.momentum["fc8.weight"].tolist() == [[-3, -3], [-3, -3]]
