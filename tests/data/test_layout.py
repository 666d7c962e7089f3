"""How folders are laid out: parts by any usual name, the level of the classes, and what could be meant in two ways."""

import unicodedata

import numpy as np
import pytest

from minialex.data import load
from minialex.data.sets import layout
from minialex.data.sets.listing import role
from minialex.errors import DataError

E_ACUTE = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"


def make(root, *folders, count=3):
    """Folders with files that are called as images; nothing here opens one."""
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / folder / f"{i}.jpg").write_bytes(folder.encode() + bytes([i]))
    return root


def parts(root, **how):
    data = load(str(root), size=8, **how)
    return data, sorted(data.train.names), sorted(data.validation.names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        *((name, "train") for name in ("train", "Train", "TRAIN", "training", "Training_Set",
                                        "training set", "trainset",
                                       "train2017", "train_images", "seg_train", "TrainData", "ILSVRC2012_img_train")),
        *((name, "validation") for name in ("val", "Valid", "validation", "dev", "val_set", "validation-data", "eval")),
        *((name, "test") for name in ("test", "Testing", "test_set", "TestSet", "seg_test", "test 1")),
        *((name, "") for name in ("trainer", "train_station", "steam train", "bus", "images", "set", "1", "testament",
                                  "validated", "devil", "cat")),
    ],
)  # fmt: skip
def test_names_of_parts(name, expected):
    assert role(name) == expected


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "valid", "test"),
        ("Train", None, "Test"),
        ("training_set", None, "test_set"),
        ("train", "dev", None),
        ("TRAIN", "Validation", None),
        ("seg_train/seg_train", None, "seg_test/seg_test"),
        ("photos/train", "photos/val", None),
    ],
)
def test_usual_names_are_parts_in_any_case(tmp_path, train, validation, test):
    for part in filter(None, (train, validation, test)):
        make(tmp_path / part, "cat", "dog")
    data, trained, checked = parts(tmp_path)
    assert data.class_names == ("cat", "dog")
    if validation:
        assert checked == [f"{validation}/{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)]
        assert len(trained) == 6
    assert not any("test" in name.lower().split("/")[0] for name in trained + checked)
    if test:
        assert parts(tmp_path, part="test")[2] == [
            f"{test}/{name}/{i}.jpg" for name in ("cat", "dog") for i in range(3)
        ]
        assert any("the test part is not used in training" in note for note in data.notes)


def test_one_part_alone_and_folders_within_folders(tmp_path):
    make(tmp_path / "photos" / "photos", "cat", "dog")
    make(tmp_path / "__MACOSX" / "photos", "cat", "dog")
    data, trained, checked = parts(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert len(trained + checked) == 6
    assert f"the classes are taken from {tmp_path / 'photos' / 'photos'}" in data.notes
    make(tmp_path / "other" / "train", "cat", "dog")
    (tmp_path / "other" / "annotations").mkdir()
    assert parts(tmp_path / "other")[0].class_names == ("cat", "dog")
    make(tmp_path / "food" / "images", "pie", "soup")
    make(tmp_path / "food", "meta", "licences", count=0)
    data = parts(tmp_path / "food")[0]
    assert data.class_names == ("pie", "soup")
    assert [item.name for item in data.left_out] == ["licences", "meta"]


def test_a_class_may_be_called_like_a_part(tmp_path):
    make(tmp_path, "train", "bus", "tram")
    data = load(str(tmp_path), size=8)
    assert data.class_names == ("bus", "train", "tram")
    assert "train: read as a class, not as a part of the data set" in data.notes


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("train/cat", "train/dog", "Training/cat", "Training/dog"), "could both be the training part"),
        (("train/cat", "train/dog", "val/cat", "dev/cat"), "could both be the validation part"),
        (
            ("fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"),
            "fold1, fold2 hold folders of the same names, cat, dog. If",
        ),
        (("mine/cat", "mine/dog", "train/cat", "train/dog"), "mine, train hold folders of the same names"),
        (("cat/train", "cat/test", "dog/train", "dog/test"), "put the parts above the classes, test/cat"),
        (
            ("train/cat", "train/dog", "test/ant", "test/bee", "bus"),
            "If they are parts, move the others away; if all are",
        ),
        (("train", "test"), "images but no class folders.*If test, train are the classes themselves, rename them"),
        (("val/cat", "val/dog", "test/cat", "test/dog"), "holds no image to train on"),
        (("train/cat", "train/dog", "val"), "val: holds 3 images but no class folders"),
        (("cat",), "contains only one class, 'cat': there is nothing to tell apart"),
        (("photos/cat",), "contains only one class"),
        (("train/cat", "train/dog", "val/cat", "val/ant"), r"class 'ant' has no folder in \S*train\.$"),
        (("train/Cat", "train/dog", "val/cat", "val/dog"), "Upper and lower case differ: 'cat' is 'Cat' there"),
        (("images", "annotations/trimaps"), "annotations, images look like images and their annotations"),
        (("train/images", "train/labels", "val/images"), "images, labels look like images and their annotations"),
        ((".",), r"holds 3 images but no class folders; expected .*CLASS/IMAGE.jpg, or give a list"),
    ],
)
def test_what_could_be_meant_in_two_ways_or_not_at_all_is_refused(tmp_path, folders, message):
    make(tmp_path, *folders)
    with pytest.raises(DataError, match=message) as caught:
        load(str(tmp_path), size=8)
    assert "\n" not in str(caught.value)


def test_images_of_one_folder_with_a_list_beside_them(tmp_path):
    make(tmp_path / "train", ".")
    (tmp_path / "labels.csv").write_text("x")
    with pytest.raises(DataError, match=r"give a list of the images with their classes \(labels.csv beside them\?\)"):
        load(str(tmp_path / "train"), size=8)


def test_one_class_can_be_measured(tmp_path):
    assert len(load(str(make(tmp_path, "cat")), size=8, part="own").validation) == 3


def test_names_written_in_two_ways_are_one_class(tmp_path):
    make(tmp_path / "train", "dog", unicodedata.normalize("NFC", E_ACUTE))
    make(tmp_path / "val", "dog", unicodedata.normalize("NFD", E_ACUTE))
    data = load(str(tmp_path), size=8)
    assert data.class_names == (unicodedata.normalize("NFC", E_ACUTE), "dog")
    assert np.bincount(data.validation.labels).tolist() == [3, 3]
    make(tmp_path / "train", unicodedata.normalize("NFD", E_ACUTE), "dog ")  # both on one disk: they join
    data = load(str(tmp_path), size=8)
    assert data.class_names == (E_ACUTE, "dog")
    assert np.bincount(data.train.labels).tolist() == [6, 6]


def test_classes_that_differ_in_case_alone_are_said(tmp_path):
    make(tmp_path, "Cat", "cat", "dog")
    assert "classes that differ only in upper and lower case are read as several: Cat, cat" in load(
        str(tmp_path), size=8
    ).notes  # fmt: skip


def test_a_class_without_validation_images_is_said_and_allowed(tmp_path):
    make(tmp_path, "train/a", "train/b", "train/c", "val/a", "val/b")
    assert f"{tmp_path / 'val'} has no images of 1 of 3 classes: c" in load(str(tmp_path), size=8).notes


def test_copies_and_our_own_folders_are_left_out(tmp_path):
    make(tmp_path, "cat", "dog", "cat/.ipynb_checkpoints", "cat/@eaDir", "cat/deeper", "@eaDir", "__MACOSX/cat",
         "#recycle", ".thumbnails", "System Volume Information", "cat/__pycache__")  # fmt: skip
    (tmp_path / "cat" / "._1.jpg").write_bytes(b"x")
    for run in ("runs/photos-1", "cat/run", "alone"):
        (tmp_path / run / "pictures").mkdir(parents=True)
        (tmp_path / run / "recipe.toml").write_text("")
        make(tmp_path / run, "pictures")
    make(tmp_path / "store", "inner")
    (tmp_path / "store" / "store.json").write_text("{}")
    (tmp_path / "begun" / "prepare").mkdir(parents=True)
    (tmp_path / "begun" / "prepare" / "plan.json").write_text("{}")
    (tmp_path / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    data, trained, checked = parts(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert sorted(trained + checked) == [f"{name}/{i}.jpg" for name in ("cat", "cat/deeper", "dog") for i in range(3)]
    reasons = {item.name: item.reason for item in data.left_out}
    assert reasons["cat/.ipynb_checkpoints"] == "a hidden folder"
    assert reasons["cat/._1.jpg"] == "a hidden file"
    assert reasons["cat/@eaDir"] == reasons["@eaDir"] == "a folder of the system, @eaDir"
    ours = {name for name, reason in reasons.items() if reason == "a run or store of minialex"}
    assert ours == {"runs", "alone", "store", "begun", "cat/run"}
    assert reasons["up"] == "a link to a folder that contains it"
    assert any("5 × a run or store of minialex" in note for note in data.notes)


def test_what_is_not_read_is_counted_and_said(tmp_path):
    make(tmp_path, "a", "b")
    for name in ("1.heic", "2.HEIC", "3.avif", "4.txt", "5"):
        (tmp_path / "a" / name).write_bytes(b"x")
    said = " ".join(load(str(tmp_path), size=8).notes)
    assert "2 × a .heic file, which is not supported" in said
    assert "1 × a .avif file" in said
    assert "1 × no image by its name, .txt" in said
    make(tmp_path / "raw", "a", "b", count=0)
    (tmp_path / "raw" / "a" / "1.cr2").write_bytes(b"x")
    with pytest.raises(DataError, match=r"holds no image .*but 1 × a \.cr2 file, which is not supported"):
        load(str(tmp_path / "raw"), size=8)


def test_spaces_behind_a_name_do_not_hide_an_image(tmp_path):
    make(tmp_path, "a", "b")
    (tmp_path / "a" / "x.jpg ").write_bytes(b"x")
    assert sum(np.bincount(load(str(tmp_path), size=8, part="all").validation.labels)) == 7


def test_kaggles_edition_from_any_of_its_upper_folders(tmp_path):
    deep = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    make(deep, "train/n1", "train/n2", "val", "test")
    (tmp_path / "LOC_synset_mapping.txt").write_text("n1 tench, Tinca tinca\nn2 goldfish\n")
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n0,n2 1 2 3 4 \n1,n1 1 2 3 4\n")
    for file in (deep / "val").iterdir():
        file.rename(file.with_suffix(".JPEG"))
    for place in (tmp_path, tmp_path / "ILSVRC", tmp_path / "ILSVRC" / "Data", deep):
        data = load(str(place), size=8)
        assert data.class_names == ("n1", "n2")
        assert data.words == ("tench, Tinca tinca", "goldfish")
        assert (len(data.train), data.validation.labels.tolist()) == (6, [1, 0])
    assert load(str(deep / "train"), size=8).words == ()


def test_a_folder_is_looked_at_once_and_no_file_is_asked_for(tmp_path, monkeypatch):
    """A network disk answers a question a file in a millisecond: 10,000 of them are ten seconds."""
    make(tmp_path, "a", "b", count=50)
    asked = []
    for name in ("stat", "lstat"):
        real = getattr(layout.os, name)
        monkeypatch.setattr(
            layout.os, name, lambda path, *args, real=real, **how: asked.append(path) or real(path, *args, **how)
        )
    load(str(tmp_path), size=8)
    assert not [path for path in asked if str(path).endswith(".jpg")]
