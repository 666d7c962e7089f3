"""What can be prepared: the official archives (made small here), folders, lists; and what is said of bad ones."""

import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from minialex.data import images
from minialex.data.dataset import LeftOut
from minialex.data.sets import listing, tree
from minialex.data.sets.listing import Entry
from minialex.data.store.sources import find
from minialex.errors import DataError

CLASSES = {"n01440764": (3, "tench, Tinca tinca"), "n01443537": (1, "goldfish"), "n01484850": (2, "great white shark")}
"""WordNet id -> the kit's own number, and words."""


def picture(seed, form="JPEG", size=(40, 30)):
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form)
    return out.getvalue()


def add(archive, name, data, **attributes):
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in attributes.items():
        setattr(member, key, value)
    archive.addfile(member, io.BytesIO(data) if member.isreg() else None)


def tar(members):
    """A tar as bytes from (name, data) pairs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members:
            add(archive, name, data)
    return out.getvalue()


def make_kit(path, truth):
    """A development kit: meta.mat with the three classes and one inner node, and the ground truth."""
    from scipy.io import savemat

    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object), ("num_children", object)]
    rows = [(number, name, words, "a fish", 0) for name, (number, words) in CLASSES.items()]
    rows.append((4, "n00001740", "entity", "that which is", 3))
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, kind)[:, None]})
    with tarfile.open(path, "w:gz") as archive:
        add(archive, "kit/readme.txt", b"hello")
        add(archive, "kit/data/meta.mat", meta.getvalue())
        add(archive, "kit/data/ILSVRC2012_validation_ground_truth.txt", "".join(f"{t}\n" for t in truth).encode())


@pytest.fixture
def official(tmp_path):
    """A folder with the three official archives, in small."""
    folder = tmp_path / "ilsvrc"
    folder.mkdir()
    inner = [
        (f"{name}.tar", tar([(f"{name}_{i}.JPEG", picture(100 * number + i)) for i in range(4)]))
        for name, (number, _) in reversed(CLASSES.items())  # no order of its own
    ]
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar(inner))
    images = [(f"ILSVRC2012_val_{i:08d}.JPEG", picture(i)) for i in range(1, 6)]
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar(images))
    make_kit(folder / "ILSVRC2012_devkit_t12.tar.gz", [2, 1, 3, 3, 1])
    return folder


def test_the_official_archives(official):
    for place in (official, official / "ILSVRC2012_img_train.tar"):
        source = find(place)
        assert source.class_names == tuple(sorted(CLASSES))
        assert source.words == tuple(CLASSES[name][1] for name in sorted(CLASSES))
        train = list(source.train())
        assert [e.label for e in train] == [2] * 4 + [1] * 4 + [0] * 4
        assert train[5].name == "n01443537.tar/n01443537_1.JPEG"
        assert train[5].read() == picture(101)
        assert train[0].read() == picture(200)
        validation = list(source.validation())
        # The kit's numbers 2, 1, 3, 3, 1 are other than the labels, which follow the sorted ids.
        assert [e.label for e in validation] == [2, 1, 0, 0, 1]
        assert [e.read() for e in validation] == [picture(i) for i in range(1, 6)]


def test_the_kit_as_a_folder_and_the_training_archive_alone(official):
    kit = official / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(kit) as archive:
        for member in archive.getmembers():
            path = official / "devkit" / member.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(archive.extractfile(member).read())
    kit.unlink()
    assert [e.label for e in find(official).validation()] == [2, 1, 0, 0, 1]
    (official / "ILSVRC2012_img_val.tar").unlink()
    found = find(official)
    assert found.validation is None
    assert found.words[1] == "goldfish"
    (official / "devkit").rename(official.parent / "elsewhere")
    assert find(official).class_names == tuple(sorted(CLASSES))


def test_validation_without_its_labels(official):
    (official / "ILSVRC2012_devkit_t12.tar.gz").unlink()
    with pytest.raises(DataError, match="put the development kit beside it"):
        find(official)


def test_members_that_are_no_plain_files_are_listed_and_nothing_is_unpacked(official, tmp_path):
    path = official / "ILSVRC2012_img_val.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "../../escape_00000001.JPEG", picture(1))
        add(archive, "link_00000002.JPEG", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "hard_00000003.JPEG", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd")
        add(archive, "device_00000004.JPEG", b"", type=tarfile.CHRTYPE)
        add(archive, "folder", b"", type=tarfile.DIRTYPE)
        add(archive, "notes.txt", b"hello")
        add(archive, "ILSVRC2012_val_00000099.JPEG", picture(9))
    before = sorted(tmp_path.rglob("*"))
    found = list(find(official).validation())
    assert [item.name.rpartition("/")[2] for item in found if isinstance(item, Entry)] == ["escape_00000001.JPEG"]
    reasons = {item.name.rpartition("/")[2]: item.reason for item in found if isinstance(item, LeftOut)}
    assert reasons == {
        "link_00000002.JPEG": "in the archive, but no plain file",
        "hard_00000003.JPEG": "in the archive, but no plain file",
        "device_00000004.JPEG": "in the archive, but no plain file",
        "notes.txt": "no number from 1 to 5 in its name",
        "ILSVRC2012_val_00000099.JPEG": "no number from 1 to 5 in its name",
    }
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("where", ["header", "inner header", "cut", "cut at a member", "no tar"])
def test_damaged_archives(official, where):
    path = official / "ILSVRC2012_img_train.tar"
    data = bytearray(path.read_bytes())
    size = len(data) // 3
    match where:
        case "header":  # of the second class: tarfile alone would take it for the end
            place = data.index(b"n01443537.tar")
            data[place + 150] ^= 0xFF
        case "inner header":
            place = data.index(b"n01443537_2.JPEG")
            data[place + 150] ^= 0xFF
        case "cut":
            data = data[: size + 700]
        case "cut at a member":
            data = data[: data.index(b"n01443537.tar") + 512 + 5000]
        case "no tar":
            data = bytearray(picture(1))
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"ILSVRC2012_img_train.tar.*(damaged|cut short).*get it again"):
        list(find(official).train())


def test_an_archive_without_its_end_mark_is_read_and_noted(official):
    path = official / "ILSVRC2012_img_val.tar"
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data + b"\0" * (-len(data) % 512))
    found = list(find(official).validation())
    assert sum(isinstance(item, Entry) for item in found) == 5
    assert "end mark" in found[-1].reason


def test_damaged_kits(official):
    kit = official / "ILSVRC2012_devkit_t12.tar.gz"
    data = kit.read_bytes()
    for changed, message in (
        (data[:200], "damaged or cut short"),
        (b"hello", "damaged or cut short"),
        (tar([("kit/readme.txt", b"x")]), r"holds no data/meta\.mat"),
        (tar([("data/meta.mat", b"x" * 200), ("x_validation_ground_truth.txt", b"1\n")]), "cannot be understood"),
    ):
        kit.write_bytes(changed)
        with pytest.raises(DataError, match=message):
            find(official)
    make_kit(kit, [1, 77])
    with pytest.raises(DataError, match="has class 77"):
        find(official)


def test_folders(tmp_path):
    for name, count in (("cat", 2), ("ape", 3)):
        for i in range(count):
            path = tmp_path / "photos" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(i))
    (tmp_path / "photos" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "photos" / "words.txt").write_text("ape  an ape\ncat\ta cat, pet\ndog a dog\n")
    source = find(tmp_path / "photos")
    assert source.class_names == ("ape", "cat")
    assert source.words == ("an ape", "a cat, pet")
    assert source.validation is None
    items = list(source.train())
    assert [item.name for item in items] == [f"ape/{i}.jpg" for i in range(3)] + [f"cat/{i}.jpg" for i in range(2)] + ["cat/notes.txt"]  # noqa: E501  # fmt: skip
    assert isinstance(items[-1], LeftOut)
    (tmp_path / "short.txt").write_text("ape an ape\n")
    with pytest.raises(DataError, match="says nothing about class 'cat'"):
        find(tmp_path / "photos", words=str(tmp_path / "short.txt"))


def test_kaggles_edition(tmp_path):
    data = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for name in CLASSES:
        (data / "train" / name).mkdir(parents=True)
        (data / "train" / name / f"{name}_1.JPEG").write_bytes(picture(1))
    (data / "val").mkdir()
    (tmp_path / "LOC_synset_mapping.txt").write_text("".join(f"{n} {w}\n" for n, (_, w) in CLASSES.items()))
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000002,n01484850 1 2 3 4 n01484850 5 6 7 8 \n"
        "ILSVRC2012_val_00000001,n01440764 9 9 9 9 \n"
    )
    source = find(tmp_path)
    assert source.class_names == tuple(sorted(CLASSES))
    assert source.words[0] == "tench, Tinca tinca"
    assert [e.label for e in source.train()] == [0, 1, 2]
    assert [(e.label, os.path.basename(e.path)) for e in source.validation()] == [
        (2, "ILSVRC2012_val_00000002.JPEG"), (0, "ILSVRC2012_val_00000001.JPEG")]  # fmt: skip
    (tmp_path / "LOC_val_solution.csv").write_text("a,n00000000 1\n")
    with pytest.raises(DataError, match="line 1: class 'n00000000'"):
        list(source.validation())
    (tmp_path / "LOC_synset_mapping.txt").unlink()
    with pytest.raises(DataError, match="LOC_synset_mapping"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "names", "labels"),
    [
        ("a.txt", "x/1.jpg 0\nmy photo.jpg 1\n\n# no image\n3.jpg 0\n", ("0", "1"), [0, 1, 0]),
        ("a.tsv", "x/1.jpg\tcat\nmy photo.jpg\ta big dog\n3.jpg\tcat\n", ("a big dog", "cat"), [1, 0, 1]),
        ("a.csv", "x/1.jpg,1\nmy photo.jpg,0\n3.jpg,1\n", ("0", "1"), [1, 0, 1]),
    ],
)
def test_lists(tmp_path, name, text, names, labels):
    (tmp_path / name).write_text(text)
    source = find(tmp_path / name)
    entries = list(source.train())
    assert source.class_names == names
    assert [e.label for e in entries] == labels
    assert [e.name for e in entries] == ["x/1.jpg", "my photo.jpg", "3.jpg"]
    assert entries[0].path == str(tmp_path / "x" / "1.jpg")


def test_a_numbered_list_with_words_and_validation(tmp_path):
    (tmp_path / "train.txt").write_text("1.jpg 0\n2.jpg 1\n")
    (tmp_path / "val.txt").write_text("3.jpg 1\n")
    (tmp_path / "synset_words.txt").write_text("n01440764 tench\nn01443537 goldfish\n")
    source = find(tmp_path / "train.txt", validation=str(tmp_path / "val.txt"))
    assert source.class_names == ("n01440764", "n01443537")
    assert [e.label for e in source.validation()] == [1]
    (tmp_path / "val.txt").write_text("3.jpg 1\n4.jpg 2\n")
    with pytest.raises(DataError, match=r"val\.txt, line 2: class '2'"):
        find(tmp_path / "train.txt", validation=str(tmp_path / "val.txt"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "none", "no such file or folder"),
        (lambda p: p, "holds no class folders"),
        (lambda p: p / "a.zip", "not a tar archive, a folder of images, or a list"),
        (lambda p: p / "empty.txt", "lists no image"),
        (lambda p: p / "bare.txt", "line 1: expected a path and a class, got 'x.jpg'"),
        (lambda p: p / "binary.txt", "cannot be read as text"),
        (lambda p: p / "huge.txt", r"class 1 has no image \(the largest is 99999999\)"),
    ],
)
def test_what_is_no_source(tmp_path, make, message):
    (tmp_path / "a.zip").write_bytes(b"PK")
    (tmp_path / "empty.txt").write_text("\n# x\n")
    (tmp_path / "bare.txt").write_text("x.jpg\n")
    (tmp_path / "binary.txt").write_bytes(b"\x89PNG\x00 1\n")
    (tmp_path / "huge.txt").write_text("x.jpg 99999999\n")
    with pytest.raises(DataError, match=message):
        find(make(tmp_path))


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    assert Entry(0, "a", str(path)).read() == b"12345"
    assert Entry(0, "a", str(path), 1, 3).read() == b"234"
    (tmp_path / "empty.jpg").write_bytes(b"")
    monkeypatch.setattr(listing, "MOST_BYTES", 100)
    monkeypatch.setattr(images, "MOST_BYTES", 3)
    for entry, message in (
        (Entry(0, "a", str(tmp_path / "none.jpg")), "no such image file"),
        (Entry(0, "a", str(tmp_path)), "no such image file: it is a folder"),
        (Entry(0, "a", str(path)), "a file of more than 0 MiB"),
        (Entry(0, "a", str(tmp_path / "empty.jpg")), "empty"),
        (Entry(0, "a", str(path), 3, 9), "cut short: 2 of 9 bytes"),
        (Entry(0, "a", str(path), 0, 101), "101 bytes, more than 100"),
    ):
        with pytest.raises(DataError, match=message):
            entry.read()
    if os.name == "posix":  # a pipe that nobody writes would block for ever
        os.mkfifo(tmp_path / "pipe.jpg")
        listed = dict(tree.images(tmp_path))
        assert listed[str(tmp_path / "pipe.jpg")] == "a pipe, a socket or a device"
