"""A folder in which a small network was trained from Python: ``runs/shapes``, and ``photo.png`` beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minialex

TINY: dict[str, Any] = {
    "backend": "numpy", "train_images": 96, "validation_images": 32, "batch_size": 16, "epochs": 2, "steps": (2,),
    "kernels": (4,) * 5, "features": (8, 8),
}  # fmt: skip


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder."""
    folder = tmp_path_factory.mktemp("api")
    minialex.train("shapes", **TINY, out=folder / "runs" / "shapes", progress=False)
    picture = minialex.data.load("shapes", train_images=8, validation_images=8).validation.read(np.arange(1))[0]
    Image.fromarray(picture.transpose(1, 2, 0)).save(folder / "photo.png")
    return folder


@pytest.fixture
def tiny() -> dict[str, Any]:
    """Recipe fields of a training of a second."""
    return dict(TINY)


@pytest.fixture
def there(trained: Path) -> Iterator[Path]:
    """The folder, as the working folder."""
    before = Path.cwd()
    os.chdir(trained)
    yield trained
    os.chdir(before)
