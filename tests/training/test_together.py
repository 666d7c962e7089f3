"""What ranks refuse, each seen by itself: another rank's words are made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from minialex import __version__
from minialex.engine.session import Session
from minialex.errors import ConfigurationError, DataError, MinialexError, NumericalError
from minialex.ranks.group import Alone
from minialex.recipe.toml import load
from minialex.training.together import check_alike, check_weights

RECIPE = load("small")
IMAGES = {"training images": "60", "training sha256": "ab"}


@dataclass(frozen=True)
class Two(Alone):
    """Rank 0 of two; the other says what `other` makes of what this one says."""

    size: int = 2
    other: Callable[[Any], Any] = lambda item: item

    @property
    def places(self) -> Any:
        return "here", "there"

    def exchange(self, item: Any) -> list[Any]:
        return [item, self.other(item)]


def test_those_that_are_alike_go_on() -> None:
    check_alike(Two(), RECIPE, IMAGES)


@pytest.mark.parametrize(
    ("position", "value", "kind", "words"),
    [
        (
            0,
            "0.0.1",
            ConfigurationError,
            rf"^rank 1 runs minialex 0\.0\.1, rank 0 runs {__version__}: install",
        ),
        (1, "middle", ConfigurationError, r"^rank 1 runs on a middle-endian machine, rank 0 on a (little|big)-endian$"),
        (3, {**IMAGES, "training sha256": "cd"}, DataError, r"^rank 1 has other data .*\(training sha256 differs\)"),
        (3, {"training images": "60"}, DataError, r"\(training sha256 differs\)"),
        (3, {**IMAGES, "network sha256": "cd"}, DataError, r"\(network sha256 differs\)"),
    ],
)
def test_another_version_machine_or_data_set_is_refused(
    position: int, value: Any, kind: type[MinialexError], words: str
) -> None:
    def other(item: list[Any]) -> list[Any]:
        return [*item[:position], value, *item[position + 1 :]]

    with pytest.raises(kind, match=words):
        check_alike(Two(other=other), RECIPE, IMAGES)


def test_another_recipe_is_refused_but_for_where_things_are() -> None:
    told: list[Any] = []

    def other(item: list[Any]) -> list[Any]:
        told.extend(item)
        return [*item[:2], {**item[2], "seed": "4"}, item[3]]

    with pytest.raises(ConfigurationError, match=r"another recipe than rank 0: seed is 4, not 0$"):
        check_alike(Two(other=other), RECIPE, IMAGES)
    assert {"seed", "batch_size", "shards", "backend", "model"} <= set(told[2])
    assert not {"devices", "loader_threads", "data", "init_from"} & set(told[2])


def test_weights_that_are_not_the_same_are_not_saved() -> None:
    weights = {"conv1.weight": np.ones((2, 3), np.float32), "fc8.bias": np.zeros(4, np.float32)}
    session = cast(Session, SimpleNamespace(weights=lambda: weights))
    check_weights(Two(), session, 12)

    def other(sums: list[int]) -> list[int]:
        changed = weights["fc8.bias"].copy()
        changed[3] = np.float32(1e-30)
        there = cast(Session, SimpleNamespace(weights=lambda: {**weights, "fc8.bias": changed}))
        found: list[int] = []
        check_weights(Two(other=lambda item: found.extend(item) or item), there, 12)
        return found

    with pytest.raises(NumericalError, match=r"^rank 1 \(there\) has other weights than rank 0 after step 12 "):
        check_weights(Two(other=other), session, 12)
