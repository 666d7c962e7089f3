"""Activations between ranks: what comes out is the same for any number of them, and what one rank would make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex.backend.rules import RULES
from minialex.errors import ConfigurationError
from minialex.ranks import dividing
from minialex.ranks.group import ALONE, Alone

PIECES = 4
RANDOM = np.random.default_rng(5)
IMAGES = [RANDOM.normal(size=(3, 8)).astype(np.float32) for _ in range(PIECES)]
UNITS = [RANDOM.normal(size=(12, 2)).astype(np.float32) for _ in range(PIECES)]
WHOLE = [RANDOM.normal(size=(12, 8)).astype(np.float32) for _ in range(PIECES)]


def own(group: Any, pieces: list[Any]) -> list[Any]:
    count = PIECES // group.size
    return pieces[group.rank * count : (group.rank + 1) * count]


def calls(group: Any) -> dict[str, tuple[Any, Any]]:
    """What each function makes of this rank's pieces, and what the rule says of it."""
    parts = PIECES // group.size
    asked: dict[str, tuple[str, list[Any], dict[str, Any]]] = {
        "images": ("gather", IMAGES, {"axis": 0}),
        "units": ("gather", UNITS, {"axis": 1}),
        "sum of images": ("scatter", WHOLE, {"axis": 0, "parts": parts}),
        "sum of units": ("scatter", WHOLE, {"axis": 1, "parts": parts}),
        "to images": ("swap", UNITS, {"axis": 1, "parts": parts, "width": 7}),
        "to units": ("swap", [x[:, :7] for x in IMAGES], {"axis": 0, "parts": parts, "width": 8}),
    }
    made = {}
    for what, (name, pieces, how) in asked.items():
        xs = own(group, pieces)
        made[what] = (
            getattr(dividing, name)(xs, **how, group=group),
            RULES[f"{name}_over_ranks"](xs, **how, group=group),
        )
    return made


@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_number_of_ranks_gives_what_one_gives(together: Any, size: int) -> None:
    alone = {what: made for what, (made, _) in calls(ALONE).items()}
    np.testing.assert_array_equal(alone["images"], np.concatenate(IMAGES))
    np.testing.assert_array_equal(alone["units"], np.concatenate(UNITS, 1))
    total = (WHOLE[0] + WHOLE[1]) + (WHOLE[2] + WHOLE[3])
    np.testing.assert_array_equal(np.concatenate(alone["sum of images"]), total)
    np.testing.assert_array_equal(np.concatenate(alone["sum of units"], 1), total)
    np.testing.assert_array_equal(np.concatenate(alone["to images"]), np.concatenate(UNITS, 1)[:, :7])
    padded = np.pad(np.concatenate(IMAGES)[:, :7], ((0, 0), (0, 1)))
    np.testing.assert_array_equal(np.concatenate(alone["to units"], 1), padded)
    for rank, found in enumerate(together(size, calls)):
        for what, (made, specs) in found.items():
            wanted = alone[what] if what in ("images", "units") else own(Alone(rank, size), alone[what])
            np.testing.assert_array_equal(np.array(made), np.array(wanted), err_msg=what)
            listed = specs if isinstance(specs, list) else [specs]
            arrays = made if isinstance(made, list) else [made]
            assert [(spec.shape, spec.dtype) for spec in listed] == [(array.shape, array.dtype) for array in arrays]


def test_a_rank_apart_hears_zeros() -> None:
    group = Alone(1, 2)
    np.testing.assert_array_equal(dividing.gather(IMAGES[2:], axis=0, group=group)[:6], 0)
    np.testing.assert_array_equal(dividing.gather(IMAGES[2:], axis=0, group=group)[6:], np.concatenate(IMAGES[2:]))


@pytest.mark.parametrize(
    ("name", "xs", "how"),
    [
        ("gather", [], {"axis": 0}),
        ("gather", [IMAGES[0], UNITS[0]], {"axis": 0}),
        ("gather", [np.zeros((2, 2, 2), np.float32)], {"axis": 0}),
        ("scatter", WHOLE, {"axis": 1, "parts": 3}),
        ("scatter", [WHOLE[0], IMAGES[0]], {"axis": 1, "parts": 2}),
        ("swap", UNITS, {"axis": 1, "parts": 5, "width": 7}),
        ("swap", UNITS, {"axis": 1, "parts": 4, "width": 9}),
        ("swap", IMAGES, {"axis": 0, "parts": 4, "width": 7}),
    ],
)
def test_what_does_not_fit_is_refused(name: str, xs: list[Any], how: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}_over_ranks"):
        RULES[f"{name}_over_ranks"](xs, **how, group=ALONE)
