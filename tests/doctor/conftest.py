"""What two devices train in tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minialex.doctor.pair import small_recipe
from minialex.recipe.fields import Recipe


@pytest.fixture
def tiny() -> Callable[[str], Recipe]:
    """What two devices train in tests: the small network, smaller."""

    def recipe(precision: str) -> Recipe:
        return small_recipe(precision).replace(
            kernels=(4, 8, 8, 8, 8), features=(16, 16), batch_size=4, classes=5, crop=20, image_size=24
        )

    return recipe


@pytest.fixture(autouse=True)
def no_ranks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the findings about several processes, which take seconds, be looked at in their own tests alone."""
    if request.path.stem != "test_ranks":
        monkeypatch.setattr("minialex.doctor.ranks.checks", lambda measure: [])
