"""The official archive's layout: read packed and unpacked, and everything that is wrong with it noticed."""

import gzip
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from minialex.data import load
from minialex.data.sets import cifar10
from minialex.errors import DataError

NAMES = (*cifar10.TRAIN, cifar10.TEST)


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def batch(index, count=3):
    """A small batch as the archive has it."""
    pixels = np.random.default_rng(index).integers(0, 256, (count, 3072), np.uint8)
    labels = [(index + i) % 10 for i in range(count)]
    return {b"batch_label": b"training batch", b"labels": labels, b"data": pixels, b"filenames": [b"a.png"] * count}


def contents(**changed):
    """Members' names and bytes; `changed` replaces dictionaries, bytes, or with None leaves out."""
    values = {name: batch(i) for i, name in enumerate(NAMES)}
    values[cifar10.META] = {b"label_names": [n.encode() for n in cifar10.CLASS_NAMES], b"num_vis": 3072}
    values.update({name.replace("meta", cifar10.META): value for name, value in changed.items()})
    return {name: value if isinstance(value, bytes) else pickle.dumps(value, 2)
            for name, value in values.items() if value is not None}  # fmt: skip


def member(name, content=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for attribute, value in attributes.items():
        setattr(info, attribute, value)
    return info, content


def write_archive(path, members, compress=True):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    path.write_bytes(gzip.compress(buffer.getvalue()) if compress else buffer.getvalue())
    return path


def standard(**changed):
    return [member(f"{cifar10.FOLDER}/{name}", content) for name, content in contents(**changed).items()]


@pytest.fixture
def archive(tmp_path):
    return write_archive(tmp_path / cifar10.ARCHIVE, standard())


def check_small(data):
    assert (len(data.train), len(data.validation), data.train.size) == (15, 3, 32)
    for i in range(5):
        assert np.array_equal(data.train.read(np.arange(3 * i, 3 * i + 3)).reshape(3, -1), batch(i)[b"data"])
    assert data.train.labels.tolist() == [(i + j) % 10 for i in range(5) for j in range(3)]
    assert np.array_equal(data.validation.read(np.arange(3)).reshape(3, -1), batch(5)[b"data"])
    assert data.class_names == cifar10.CLASS_NAMES


def test_packed_or_not_in_any_place(archive, tmp_path, nowhere, monkeypatch):
    check_small(cifar10.load(str(archive)))
    check_small(cifar10.load(str(tmp_path)))
    unpacked = tmp_path / "unpacked" / cifar10.FOLDER
    unpacked.mkdir(parents=True)
    for name, content in contents().items():
        (unpacked / name).write_bytes(content)
    check_small(cifar10.load(str(unpacked)))
    check_small(cifar10.load(str(unpacked.parent)))
    monkeypatch.setenv("MINIALEX_DATA", str(tmp_path))
    check_small(cifar10.load())
    monkeypatch.delenv("MINIALEX_DATA")
    (nowhere / "data" / "cifar10").mkdir(parents=True)
    (nowhere / "data" / "cifar10" / cifar10.ARCHIVE).write_bytes(archive.read_bytes())
    check_small(cifar10.load())


def test_other_orders_forms_and_bystanders(tmp_path):
    members = [member(cifar10.FOLDER, type=tarfile.DIRTYPE), member(f"{cifar10.FOLDER}/readme.html", b"<p>")]
    path = write_archive(tmp_path / "plain.tar", members + standard()[::-1], compress=False)
    check_small(cifar10.load(str(path)))
    without_meta = write_archive(tmp_path / "meta.tar.gz", standard(meta=None))
    check_small(cifar10.load(str(without_meta)))
    dotted = [member(f"./{info.name}", content) for info, content in standard()]
    check_small(cifar10.load(str(write_archive(tmp_path / "dot.tar.gz", dotted))))


def test_nothing_there_says_where_was_looked_and_how_to_get_it(nowhere):
    with pytest.raises(DataError, match="minialex download cifar10") as caught:
        cifar10.load()
    assert str(nowhere / ".cache" / "minialex") in str(caught.value)
    with pytest.raises(DataError, match="looked in /nonexistent") as caught:
        cifar10.load("/nonexistent")
    assert ".cache" not in str(caught.value)  # a given place is the only one
    assert "\n" not in str(caught.value)


WRONG = {
    "not a dictionary": ([1, 2], "no dictionary"),
    "no images": ({b"labels": [1]}, r"\[n, 3072\]"),
    "images as a list": ({b"data": [1, 2], b"labels": [1]}, r"\[n, 3072\]"),
    "three axes": ({b"data": np.zeros((1, 3, 1024), np.uint8), b"labels": [1]}, r"\[1, 3, 1024\]"),
    "another size": ({b"data": np.zeros((1, 784), np.uint8), b"labels": [1]}, r"\[1, 784\]"),
    "empty": ({b"data": np.zeros((0, 3072), np.uint8), b"labels": []}, r"\[0, 3072\]"),
    "too few labels": ({**batch(0), b"labels": [1, 2]}, "3 images but 2 labels"),
    "no labels": ({b"data": batch(0)[b"data"]}, "3 images but no labels"),
    "CIFAR-100": ({b"data": batch(0)[b"data"], b"fine_labels": [1, 2, 3]}, "no labels"),
    "label 10": ({**batch(0), b"labels": [1, 10, 3]}, "label is 10"),
    "label -1": ({**batch(0), b"labels": [1, -1, 3]}, "label is -1"),
    "label as text": ({**batch(0), b"labels": [1, "2", 3]}, "label is 2"),
    "label as bool": ({**batch(0), b"labels": [1, True, 3]}, "label is True"),
    "floats": ({b"data": np.zeros((1, 3072), np.float32), b"labels": [1]}, "refused"),
    "cut short": (pickle.dumps(batch(0), 2)[:-2000], "not a complete pickle"),
    "empty file": (b"", "not a complete pickle"),
    "a web page": (b"<!DOCTYPE html><p>sorry", "data_batch_2"),
    "missing": (None, "data_batch_2 missing"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_batch_is_named(name, tmp_path):
    value, message = WRONG[name]
    path = write_archive(tmp_path / "a.tar.gz", standard(data_batch_2=value))
    with pytest.raises(DataError, match=message) as caught:
        cifar10.load(str(path))
    assert "data_batch_2" in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("names", [None, [b"a"] * 9, [1] * 10, b"text"])
def test_wrong_class_names(names, tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", standard(meta={b"label_names": names}))
    with pytest.raises(DataError, match=r"batches\.meta: label_names"):
        cifar10.load(str(path))


def test_a_hostile_batch_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    for name in ("data_batch_3", "meta"):
        path = write_archive(tmp_path / "a.tar.gz", standard(**{name: {b"data": Evil(marker)}}))
        with pytest.raises(DataError, match="refused"):
            cifar10.load(str(path))
    assert not marker.exists()


def inside(name):
    return f"{cifar10.FOLDER}/{name}"


SMUGGLED = {
    "absolute": (member("/tmp/evil", b"x"), "points out"),
    "above": (member("../evil", b"x"), "points out"),
    "above from inside": (member(inside("../../evil"), b"x"), "points out"),
    "backslash": (member("..\\evil", b"x"), "points out"),
    "symbolic link": (member(inside("data_batch_1"), type=tarfile.SYMTYPE, linkname="/etc/passwd"), "link"),
    "hard link": (member(inside("readme"), type=tarfile.LNKTYPE, linkname="data_batch_1"), "link"),
    "device": (member(inside("null"), type=tarfile.CHRTYPE), "link, a device"),
    "pipe": (member(inside("pipe"), type=tarfile.FIFOTYPE), "link, a device"),
    "with holes": (
        member(inside("sparse"), b"x", pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": "1099511627776"}),
        "link",
    ),
    "twice": (member(inside("data_batch_1"), contents()["data_batch_1"]), "occurs twice"),
}


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", SMUGGLED)
def test_members_that_no_data_set_needs_are_refused(name, first, tmp_path):
    extra, message = SMUGGLED[name]
    members = [extra, *standard()] if first else [*standard(), extra]
    before = sorted(tmp_path.parent.rglob("*"))
    path = write_archive(tmp_path / "a.tar.gz", members)
    with pytest.raises(DataError, match=message):
        cifar10.load(str(path))
    assert sorted(tmp_path.parent.rglob("*")) == sorted([*before, path])  # nothing was unpacked


def test_sizes_that_are_claimed_are_not_believed(tmp_path, monkeypatch):
    info, content = member(inside("data_batch_1"), b"x" * 100)
    buffer = io.BytesIO()
    info.size = 1 << 40
    buffer.write(info.tobuf(tarfile.GNU_FORMAT) + content)
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(buffer.getvalue()))
    with pytest.raises(DataError, match="claims 1,099,511,627,776 bytes"):
        cifar10.load(str(path))
    info.size = -1024
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)))
    with pytest.raises(DataError):
        cifar10.load(str(path))
    info.size = 1 << 20  # within bounds, but not there
    path.write_bytes(gzip.compress(info.tobuf() + bytes(512)))
    with pytest.raises(DataError, match="cut short"):
        cifar10.load(str(path))


def test_an_archive_that_unpacks_without_end(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST_ARCHIVE", 1 << 20)
    zeros = [member(f"other/{i}", bytes(1 << 18)) for i in range(6)]
    path = write_archive(tmp_path / "a.tar.gz", zeros)
    assert path.stat().st_size < 10_000
    with pytest.raises(DataError, match="unpacks to more than"):
        cifar10.load(str(path))
    trailing = write_archive(tmp_path / "b.tar.gz", standard())
    trailing.write_bytes(trailing.read_bytes() + gzip.compress(bytes(2 << 20)))
    with pytest.raises(DataError, match="unpacks to more than"):
        cifar10.load(str(trailing))


def test_an_archive_of_very_many_members(tmp_path):
    path = write_archive(tmp_path / "a.tar.gz", [member(f"other/{i}") for i in range(100)])
    with pytest.raises(DataError, match="more than 64 members"):
        cifar10.load(str(path))


def test_cut_anywhere(archive):
    whole = archive.read_bytes()
    assert len(whole) > 50_000
    for length in [0, 1, 2, 5, 17, *range(100, len(whole), 4999), *range(len(whole) - 12, len(whole))]:
        archive.write_bytes(whole[:length])
        with pytest.raises(DataError):
            cifar10.load(str(archive))


def test_any_flipped_bit_is_noticed(archive):
    whole = archive.read_bytes()
    rng = np.random.default_rng(0)
    harmless = set(range(3, 10))  # gzip's flags and date: the content is not concerned, but flags may be
    for position in rng.integers(10, len(whole), 60):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(rng.integers(8))
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match=str(archive)):
            cifar10.load(str(archive))
    for position in sorted({0, 1, 2} | harmless):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        archive.write_bytes(damaged)
        try:
            check_small(cifar10.load(str(archive)))
        except DataError:
            assert position in {0, 1, 2, 3}
        else:
            assert position in harmless


def test_files_that_are_no_archive(tmp_path):
    for content in (
        b"",
        b"<html>not found</html>",
        b"PK\x03\x04" + bytes(600),
        os.urandom(2000),
        gzip.compress(b"hello"),
    ):
        path = tmp_path / "cifar-10-python.tar.gz"
        path.write_bytes(content)
        with pytest.raises(DataError):
            cifar10.load(str(path))


def test_the_real_archive(real_data):
    data = cifar10.load(str(real_data))
    assert (len(data.train), len(data.validation)) == (20_000, 4_000)
    assert np.bincount(data.train.labels).tolist() == [2000] * 10
    assert data.class_names == cifar10.CLASS_NAMES
    mean = data.train.read(np.arange(2000)).mean(axis=(0, 2, 3))
    assert np.abs(mean - (125.3, 123.0, 113.9)).max() < 4  # red, green, blue of the official images


def test_the_training_part_is_measured_on_the_images_that_training_takes(archive):
    few = load(f"cifar10:{archive}", train_images=6, validation_images=2)
    measured = load(f"cifar10:{archive}", train_images=6, validation_images=2, part="train")
    assert len(few.train) == 6
    assert measured.validation.labels.tolist() == few.train.labels.tolist()
    assert (measured.validation.read(np.arange(6)) == few.train.read(np.arange(6))).all()
