"""A small network of two columns with random weights, and images for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from minialex.backend import registry
from minialex.data import DataSet, load
from minialex.data.dataset import statistics_of
from minialex.engine.session import Session, placement_of
from minialex.recipe.toml import load as load_recipe

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
        return Session(recipe, loaded, placement_of(loaded, devices, recipe.columns), statistics_of(shapes.train))

    return make
