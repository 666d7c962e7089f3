"""One number for a part of a data set: the same for the same images in their order, wherever they lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.data.dataset import ArraySplit, Split, Subset
from minialex.data.digest import digest
from minialex.data.sets import folder
from minialex.errors import DataError

random = np.random.default_rng(0)
IMAGES, LABELS = random.integers(0, 256, (6, 3, 8, 8), np.uint8), np.array([0, 1, 2, 0, 1, 2])


def test_pixels_labels_and_order_count() -> None:
    one = digest(ArraySplit(IMAGES, LABELS))
    assert one == digest(ArraySplit(IMAGES.copy(), LABELS.copy()))
    other = IMAGES.copy()
    other[-1, -1, -1, -1] ^= 1
    turned = np.arange(6)[::-1]
    different: list[Split] = [
        ArraySplit(other, LABELS),
        ArraySplit(IMAGES, LABELS[turned]),
        ArraySplit(IMAGES[turned], LABELS[turned]),
        ArraySplit(IMAGES[:-1], LABELS[:-1]),
        Subset(ArraySplit(IMAGES, LABELS), np.array([0, 1, 2, 3, 5])),
    ]
    assert len({one, *map(digest, different)}) == 1 + len(different)


def test_of_a_folder_the_files_count_and_not_the_place(tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        path = tmp_path / "here" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
    shutil.copytree(tmp_path / "here", tmp_path / "there")

    def parts(name: str) -> tuple[str, str]:
        data = folder.load(tmp_path / name, size=8)
        return digest(data.train), digest(data.validation)

    before = parts("here")
    assert parts("there") == before
    changed = folder.load(tmp_path / "there", size=8).train
    assert digest(Subset(changed, np.array([0, 2]))) != digest(Subset(changed, np.array([0, 1])))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "there" / changed.names[1])
    assert parts("there")[0] != before[0]
    assert parts("there")[1] == before[1]
    fresh = folder.load(tmp_path / "there", size=8).train
    (tmp_path / "there" / fresh.names[1]).unlink()
    with pytest.raises(DataError, match=r"no such image file|cannot be read"):
        digest(fresh)
