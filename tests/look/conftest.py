"""A small network of two columns with random weights, and images for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minialex import registry
from minialex.data import DataSet, load
from minialex.data.statistics import statistics
from minialex.recipe import load as load_recipe
from minialex.session import Session, placement_of

SMALL = {"kernels": (8, 8, 12, 12, 8), "features": (16, 16), "classes": 10, "seed": 4}


@pytest.fixture(scope="session")
def shapes() -> DataSet:
    """Generated figures: 60 to train on, 40 to validate."""
    return load("shapes", train_images=60, validation_images=40)


@pytest.fixture(scope="session")
def make_session(shapes: DataSet) -> Callable[..., Session]:
    """Sessions of the small network, by backend, devices and recipe fields."""

    def make(backend: str = "numpy", devices: str | None = None, **fields: object) -> Session:
        recipe = load_recipe("shapes").replace(**{**SMALL, **fields})
        loaded = registry.load(backend)
        return Session(recipe, loaded, placement_of(loaded, devices, recipe.columns), statistics(shapes.train))

    return make
