"""A run's key holds the contents of what is named by a path, and only the name of what is built in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.data.store.prepare import prepare
from minialex.errors import DataError
from minialex.recipe.fields import Recipe
from minialex.studies import contents
from minialex.studies.measures import data_of
from minialex.studies.study import deciding_fields, key, parse

NETWORK = """
from minialex.network.layers import Flatten, Linear
from minialex.network.network import Network

def net(fields):
    return Network("mine", (3, fields.crop, fields.crop), (Flatten("flat"), Linear("fc", fields.classes, bias=BIAS)))
"""
STUDY = """
title = "Mine"
question = "What?"
section = "4"
claim = "nothing"
measure = "error"
base = "small"
seeds = [1, 2]
[regime]
data = "nowhere/photos"
[[arms]]
name = "a"
[[arms]]
name = "b"
fields = { momentum = 0.5 }
"""


def anew(recipe: Recipe) -> str:
    """The key as another process finds it."""
    contents._images.cache_clear()
    contents._networks.clear()
    return key(recipe)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(4):
            pixels = np.full((8, 8, 3), 20 * n + len(name + "x" * (name == "cat")), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{n}.png")
    return tmp_path / "photos"


def test_images_that_are_exchanged_give_another_key(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(data="photos")
    before = anew(recipe)
    assert anew(recipe) == before
    shutil.copy(photos / "cat" / "0.png", photos / "dog" / "0.png")
    changed = anew(recipe)
    assert changed != before
    (photos / "dog" / "0.png").rename(photos / "cat" / "4.png")
    assert anew(recipe) not in (before, changed)
    monkeypatch.setattr("minialex.studies.contents.load", None)
    assert key(recipe)  # found once in a process


def test_a_store_counts_with_its_checksums(photos: Path) -> None:
    prepare(photos, "store", size=8, workers=1)
    before = anew(Recipe(data="store"))
    shutil.rmtree("store")
    prepare(photos, "store", size=8, workers=1)
    assert anew(Recipe(data="store")) == before
    shutil.rmtree("store")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(photos / "dog" / "0.png")
    prepare(photos, "store", size=8, workers=1)
    assert anew(Recipe(data="store")) != before


def test_an_edited_network_gives_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for n, bias in enumerate(("0", "1", "0")):
        (tmp_path / str(n)).mkdir()
        monkeypatch.chdir(tmp_path / str(n))
        Path("mine.py").write_text(NETWORK.replace("BIAS", bias) + "# a comment\n" * n, encoding="utf-8")
        keys.append(anew(Recipe(data="shapes", model="mine.py:net", columns=1, classes=0, crop=16, image_size=16)))
    assert keys[0] == keys[2] != keys[1]


OWN_LAYER = """
from dataclasses import replace
from minialex.network.layers import Flatten, Linear
from minialex.network.network import Network

class Mine(Linear):
    def parameters(self, *where):
        return {name: replace(one, std=STD) for name, one in super().parameters(*where).items()}

    def forward(self, backend, parameters, x, context):
        y, saved = super().forward(backend, parameters, x, context)
        return y if context.training else backend.scale(y, SCALE), saved

def net(fields):
    return Network("mine", (3, fields.crop, fields.crop), (Flatten("flat"), Mine("fc", fields.classes)))
"""


def test_so_does_one_whose_training_step_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Initial values, and what is done only when it does not train, decide a run's errors, too."""
    keys = []
    for n, (std, scale) in enumerate((("0.5", "0.5"), ("0.25", "0.5"), ("0.5", "1.0"), ("0.5", "0.5"))):
        (tmp_path / str(n)).mkdir()
        monkeypatch.chdir(tmp_path / str(n))
        Path("mine.py").write_text(OWN_LAYER.replace("STD", std).replace("SCALE", scale), encoding="utf-8")
        keys.append(anew(Recipe(data="shapes", model="mine.py:net", columns=1, classes=0, crop=16, image_size=16)))
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3


HOLDING = """
from dataclasses import dataclass, field
from typing import Any
import numpy as np
from minialex.network.layers import Flatten, Linear
from minialex.network.network import Network

@dataclass(frozen=True)
class Mine(Linear):
    words: frozenset = frozenset(("one", "two", "three", "four", "five", "six"))
    numbers: Any = field(default=None, compare=False)

def net(fields):
    numbers = np.arange(2000.0)
    numbers[1000] = NUMBER
    layers = Flatten("flat"), Mine("fc", fields.classes, numbers=numbers)
    return Network("mine", (3, fields.crop, fields.crop), layers)
"""


def test_what_layers_hold_counts_whole_and_the_same_in_every_process(tmp_path: Path) -> None:
    asks = """
from minialex.recipe.fields import Recipe
from minialex.studies.study import key
print(key(Recipe(data="shapes", model="mine.py:net", columns=1, classes=0, crop=16, image_size=16)))
"""
    root = Path(__file__).parents[2]
    path = os.pathsep.join(map(str, (root, root / "backends")))
    keys = []
    for number, seed in (("7", "1"), ("8", "1"), ("7", "2")):
        (tmp_path / "mine.py").write_text(HOLDING.replace("NUMBER", number), encoding="utf-8")
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
        done = subprocess.run(
            [sys.executable, "-c", asks], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        keys.append(done.stdout)
    assert keys[0] == keys[2] != keys[1]


def test_of_built_in_data_the_name_is_enough() -> None:
    assert contents.digests(Recipe(data="cifar10:/nowhere/at/all")) == {}
    assert key(Recipe(data="cifar10:/nowhere")) == key(Recipe(data="cifar10"))


def test_a_study_can_be_read_before_its_images_are_there() -> None:
    study = parse(STUDY, "mine")
    assert deciding_fields(study.recipe(study.arms[0], 1))["data"] == "nowhere/photos"
    with pytest.raises(DataError, match="nowhere/photos: no such folder"):
        key(study.recipe(study.arms[0], 1))


def test_a_runs_images_are_made_square_and_checked_as_its_recipe_says(photos: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 33, 3), np.uint8)).save(photos / "cat" / "0.png")
    recipe = Recipe(data="photos", image_size=8, crop=8)
    first, other = (data_of(recipe.replace(resize=way), "") for way in ("one-step", "resize-then-crop"))
    pixels = [
        np.concatenate([part.read(np.arange(len(part))) for part in (data.train, data.validation)])
        for data in (first, other)
    ]
    assert not np.array_equal(*pixels)
    assert data_of(recipe.replace(resize="one-step", momentum=0.5), "") is first
    (photos / "dog" / "3.png").write_bytes(b"nothing")
    found = data_of(recipe.replace(skip_broken=True), "")
    assert [item.name for item in found.left_out] == ["dog/3.png"]
