"""Before a run: which images are validated on, whether every file can be used, and which are in both parts."""

import os
import shutil
import threading
import unicodedata

import numpy as np
import pytest
from PIL import Image

from minialex.data import checked, load
from minialex.data.dataset import DataSet, statistics_of
from minialex.data.digest import digest
from minialex.data.sets import folder
from minialex.data.sets.folder import name_hash, validation_part
from minialex.errors import ConfigurationError, DataError


def picture(path, number):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for i in range(40):
        picture(tmp_path / "photos" / "ab"[i % 2] / f"{i:02}.png", i)
    return tmp_path / "photos"


def names(split):
    """The images of a part, whether or not some were left out."""
    whole, chosen = folder._files(split)
    return {whole.names[i] for i in chosen}


# ---- which images are validated on ------------------------------------------------------------------------------


def test_an_image_that_is_added_removed_or_renamed_moves_no_other_one(photos):
    before = load(str(photos), size=8)
    for i in range(40, 70):
        picture(photos / "ab"[i % 2] / f"{i:02}.png", i)
    picture(photos / "c" / "new.png", 99)
    after = load(str(photos), size=8)
    assert names(before.train) < names(after.train)
    assert names(before.validation) < names(after.validation)
    for name in sorted(names(after.train))[::3]:
        (photos / name).unlink()
    fewer = load(str(photos), size=8)
    assert names(fewer.train) < names(after.train)
    assert names(fewer.validation) == names(after.validation)


def test_the_split_is_that_of_any_system():
    composed, taken_apart = (
        unicodedata.normalize(form, "caf\N{LATIN SMALL LETTER E WITH ACUTE}/1.jpg") for form in ("NFC", "NFD")
    )
    assert name_hash(composed, 0) == name_hash(taken_apart, 0) != name_hash(composed, 1)
    assert name_hash("cat /1.jpg ", 0) == name_hash("cat/1.jpg", 0)
    assert name_hash("cats/1.jpg", 0) == 0x4B375BE6B89D8F5B  # fixed for ever: runs are resumed with it


def test_a_tenth_as_names_fall():
    labels = np.repeat(np.arange(10), 1000)
    chosen = validation_part((f"{label}/{i}" for i, label in enumerate(labels)), labels, 0, "here")
    assert 900 < chosen.sum() < 1100
    assert all(70 < count < 130 for count in np.bincount(labels[chosen]))


@pytest.mark.parametrize("seed", range(30))
def test_every_class_keeps_a_training_image_and_something_is_validated(seed):
    labels = np.array([0, 1, 1, 2, 2, 2])
    chosen = validation_part(map(str, range(6)), labels, seed, "here")
    assert set(labels[~chosen]) == {0, 1, 2}
    assert chosen.any()
    alone = validation_part("ab", np.array([0, 1]), seed, "here")
    assert 1 <= alone.sum() <= 2
    with pytest.raises(DataError, match="here: only 1 image"):
        validation_part("a", np.array([0]), seed, "here")


def test_a_class_with_one_image_is_said(tmp_path):
    for i in range(10):
        picture(tmp_path / "a" / f"{i}.png", i)
    picture(tmp_path / "b" / "0.png", 50)
    data = load(str(tmp_path), size=8)
    assert "b/0.png" in names(data.train)
    assert "1 of 2 classes have no validation image; 1 have only one image, which is used for training" in data.notes


def test_a_digest_tells_images_classes_and_their_order(photos, tmp_path):
    first = load(str(photos), size=8)
    before = {part: digest(getattr(first, part)) for part in ("train", "validation")}
    assert digest(checked(first).validation) == before["validation"] != before["train"]  # read before or not
    shutil.copytree(photos, tmp_path / "elsewhere")
    assert digest(load(str(tmp_path / "elsewhere"), size=16).validation) == before["validation"]
    assert digest(load(str(photos), size=8, validation_images=1).validation) != before["validation"]
    name = sorted(names(first.validation))[0]
    picture(photos / name, 1234)
    again = load(str(photos), size=8)
    assert digest(again.validation) != before["validation"]
    assert digest(again.train) == before["train"]
    again = load(str(photos), size=8)
    (photos / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such image file"):
        digest(again.validation)
    shapes = load("shapes", size=16, train_images=20, validation_images=10)
    assert digest(shapes.train) == digest(load("shapes", size=16, train_images=20, validation_images=10).train)
    assert digest(shapes.train) != digest(load("shapes", size=16, train_images=20, validation_images=10, seed=1).train)


# ---- whether every file can be used -----------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_all_broken_files_are_named_before_anything_begins(photos, workers, monkeypatch):
    (photos / "a" / "00.png").write_bytes(b"")
    (photos / "b" / "01.png").write_bytes(b"no image")
    (photos / "b" / "03.png").write_bytes((photos / "b" / "05.png").read_bytes()[:90])
    real = folder.read_bytes

    def forbidden(path):
        if path.endswith("04.png"):
            raise DataError("cannot be read (Permission denied).")
        return real(path)

    monkeypatch.setattr(folder, "read_bytes", forbidden)
    told, seen = [], []
    data = load(str(photos), size=8)
    with pytest.raises(
        DataError, match=r"^4 of 40 images cannot be used: .*, and 3 more; replace or remove them, or leave"
    ):
        checked(data, workers=workers, tell=told.append, progress=lambda done, total: seen.append((done, total)))
    assert [line.split(": ")[0].rpartition("/")[2] for line in sorted(told)] == ["00.png", "04.png", "01.png", "03.png"]
    assert seen[-1] == (40, 40)
    found = checked(data, workers=workers, skip_broken=True)
    gone = {"a/00.png", "b/01.png", "b/03.png", "a/04.png"}
    assert names(found.train) == names(data.train) - gone
    assert names(found.validation) == names(data.validation) - gone
    assert {item.name for item in found.left_out} == gone
    assert any(note.startswith("left out 4 of 40 images that cannot be used: ") for note in found.notes)
    assert b"b/01.png\tnot an image in a supported format" in found.left_out_table()
    assert np.array_equal(found.statistics.mean, statistics_of(found.train).mean)
    assert np.array_equal(found.statistics.covariance, statistics_of(found.train).covariance)


def test_what_is_sound_is_read_once_and_gives_the_same_statistics(photos, monkeypatch):
    data, fresh = load(str(photos), size=8), load(str(photos), size=8)
    real, opened = folder.read_bytes, []
    monkeypatch.setattr(folder, "read_bytes", lambda path: opened.append(path) or real(path))
    found = checked(data)
    assert len(opened) == len(set(opened)) == 40
    assert checked(found).train is found.train  # it was looked at
    digest(found.train)
    pixels = found.train.read(np.arange(len(found.train)))
    assert len(opened) == 40  # and lies in memory
    assert np.array_equal(pixels, fresh.train.read(np.arange(len(pixels))))
    direct = statistics_of(fresh.train)
    assert np.array_equal(found.statistics.mean, direct.mean)
    assert np.array_equal(found.statistics.covariance, direct.covariance)


def test_only_what_is_used_is_looked_at(photos):
    (photos / "a" / "00.png").write_bytes(b"")
    few = load(str(photos), size=8, train_images=3, validation_images=1)
    assert "a/00.png" not in names(few.train) | names(few.validation)
    assert len(checked(few).train) == 3
    shapes = load("shapes", size=16, train_images=20, validation_images=10)
    assert checked(shapes) is shapes


def test_a_class_or_part_that_is_all_broken(photos):
    for path in (photos / "b").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(DataError, match="photos: no training image of class 'b' can be used"):
        checked(load(str(photos), size=8), skip_broken=True)
    data = load(str(photos), size=8)
    for name in names(data.validation):
        (photos / name).write_bytes(b"x")
    with pytest.raises(DataError, match="no validation image can be used"):
        checked(data, skip_broken=True)


def test_an_interrupted_check_leaves_no_threads(photos):
    def interrupt(done, total):
        raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        checked(load(str(photos), size=8), workers=3, progress=interrupt)
    assert threading.active_count() == before


def test_copies_in_both_parts_are_said(photos):
    data = load(str(photos), size=8)
    assert not any("copies" in note for note in checked(data).notes)
    one = sorted(names(data.train))[0]
    other = sorted(names(data.validation))[0]
    shutil.copy(photos / one, photos / other)
    said = [note for note in checked(load(str(photos), size=8)).notes if "copies" in note]
    count = len(data.validation)
    assert said == [f"1 of {count} validation images are copies of training images, byte by byte: {other} is {one}"]


# ---- what is measured ------------------------------------------------------------------------------------------


def test_parts_that_can_be_measured(photos, tmp_path):
    def found(place, part, **how):
        data = load(str(place), size=8, part=part, **how)
        assert isinstance(data, DataSet)
        return len(data.validation), data.measured

    tenth = len(load(str(photos), size=8).validation)
    assert found(photos, "own") == (40, "images (all)")
    assert found(photos, "all") == (40, "images (all)")
    assert found(photos, "validation") == (tenth, "validation images")
    assert found(photos, "train") == (40, "training images")
    with pytest.raises(DataError, match="photos: has no test part"):
        load(str(photos), size=8, part="test")
    whole = tmp_path / "whole"
    shutil.copytree(photos, whole / "train")
    shutil.copytree(photos / "a", whole / "val" / "a")
    shutil.copytree(photos / "b", whole / "test" / "b")
    assert found(whole, "own") == found(whole, "validation") == (20, "validation images")
    assert found(whole, "test") == (20, "test images")
    assert found(whole, "all") == (80, "images (all)")
    assert found(whole, "own", validation_images=7)[0] == 7
    shapes = load("shapes", size=16, train_images=20, validation_images=10, part="all")
    assert shapes.validation.labels.tolist() == shapes.train.labels.tolist() + shapes.validation.second.labels.tolist()
    indices = np.array([25, 3, -1])
    assert np.array_equal(shapes.validation.read(indices)[1], shapes.train.read(np.array([3]))[0])
    assert np.array_equal(shapes.validation.read(indices)[[0, 2]], shapes.validation.second.read(np.array([5, 9])))
    with pytest.raises(ConfigurationError, match="shapes has no part 'test'"):
        load("shapes", size=16, part="test")
    with pytest.raises(ConfigurationError, match="part = 'tst'"):
        load(str(photos), part="tst")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may read everything")
def test_a_folder_that_may_not_be_read(photos):
    (photos / "a").chmod(0)
    try:
        with pytest.raises(DataError, match="a: cannot be read as a folder of images \\(Permission denied\\)"):
            load(str(photos), size=8)
    finally:
        (photos / "a").chmod(0o755)


def test_a_folder_that_cannot_be_read(photos, monkeypatch):
    real = os.scandir

    def refuse(path):
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"b: cannot be read as a folder of images \(Permission denied\)"):
        load(str(photos), size=8)
