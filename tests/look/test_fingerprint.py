"""What makes a network another one: its weights, and the mean image that is taken off before them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from minialex.look.features import fingerprint
from minialex.recipe.toml import load


def test_another_mean_image_or_another_weight_is_another_network() -> None:
    def made(mean: float, weight: float) -> str:
        session: Any = SimpleNamespace(
            recipe=load("small"), weights=lambda: {"fc8.bias": np.full(3, weight)},
            statistics=SimpleNamespace(mean=np.full((3, 4, 4), mean, np.float32)),
        )  # fmt: skip
        return fingerprint(session)

    assert made(1, 2) == made(1, 2)
    assert len({made(1, 2), made(3, 2), made(1, 3)}) == 3
