"""Features in files: the numbers, what is said of them, kills and stops, and everything that does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from minialex.data import ArraySplit
from minialex.errors import CheckpointError, ConfigurationError, DataError, ResourceError
from minialex.look import features as module
from minialex.look.features import fingerprint, manifest_of, open_features, read_manifest, write_features
from minialex.storage import atomic

NAMES = tuple("abcdefghij")


@pytest.fixture
def split(shapes):
    return shapes.validation


def made(session, split, layer="relu7", form="npy"):
    return manifest_of(session, split, layer, "shapes", "validation", NAMES, form)


def test_npy_holds_the_activations_and_the_labels(make_session, split, tmp_path: Path) -> None:
    session = make_session()
    told: list[int] = []
    manifest = write_features(
        session, split, tmp_path / "f", made(session, split, "conv3"), batch_size=16, progress=told.append
    )
    assert told == [0, 16, 32, 40]
    assert manifest.done == 40
    plain = np.load(tmp_path / "f" / "features.npy")
    expected = session.activations(split.read(np.arange(40)), ["conv3"])["conv3"]
    assert plain.dtype == np.float32
    np.testing.assert_allclose(plain, expected, rtol=1e-5, atol=1e-6)
    found = open_features(tmp_path / "f")
    np.testing.assert_array_equal(found.values, plain)
    np.testing.assert_array_equal(found.labels, split.labels)
    assert isinstance(found.values, np.memmap)
    assert found.manifest == read_manifest(tmp_path / "f") == manifest
    assert manifest.shape == (12, 7, 7)
    assert manifest.class_names == NAMES


def test_parquet_holds_the_same(make_session, split, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", 16 * 16 * 4)  # a file after each batch of 16 rows
    session = make_session()
    write_features(session, split, tmp_path / "f", made(session, split, form="parquet"), batch_size=16)
    parts = sorted(path.name for path in (tmp_path / "f").glob("*.parquet"))
    assert parts == ["part-00000000.parquet", "part-00000016.parquet", "part-00000032.parquet"]
    table = parquet.read_table(tmp_path / "f")
    assert table["image"].to_pylist() == list(range(40))
    assert table["label"].to_pylist() == split.labels.tolist()
    rows = np.stack(table["features"].to_numpy())
    expected = session.activations(split.read(np.arange(40)), ["relu7"])["relu7"]
    np.testing.assert_allclose(rows, expected, rtol=1e-5, atol=1e-6)
    about = json.loads(table.schema.metadata[b"minialex"])
    assert about["layer"] == "relu7"
    assert about["network"] == fingerprint(session)
    with pytest.raises(ConfigurationError, match="Parquet"):
        open_features(tmp_path / "f")


@pytest.mark.parametrize("form", ["npy", "parquet"])
def test_stopped_it_goes_on_and_gives_the_same(make_session, split, tmp_path: Path, monkeypatch, form: str) -> None:
    session = make_session()
    manifest = made(session, split, form=form)
    write_features(session, split, tmp_path / "whole", manifest, batch_size=8)
    seen = []
    stopped = write_features(
        session, split, tmp_path / "f", manifest, batch_size=8, progress=seen.append, stop=lambda: seen[-1] >= 16
    )
    assert stopped.done == 16
    if form == "npy":
        with pytest.raises(DataError, match="not complete: 16 of 40 images"):
            open_features(tmp_path / "f")
    told: list[int] = []
    done = write_features(session, split, tmp_path / "f", manifest, batch_size=8, progress=told.append)
    assert told == [16, 24, 32, 40]
    assert done.done == 40
    if form == "npy":
        for name in ("features.npy", "labels.npy", "_features.json"):
            assert (tmp_path / "f" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
        assert sorted(p.name for p in (tmp_path / "f").iterdir()) == ["_features.json", "features.npy", "labels.npy"]
    else:
        assert parquet.read_table(tmp_path / "f").equals(parquet.read_table(tmp_path / "whole"))


class Killed(BaseException):
    """As abrupt as Python can be."""


@pytest.mark.parametrize("form", ["npy", "parquet"])
@pytest.mark.parametrize("after", range(1, 12))
def test_killed_between_any_two_writes_it_goes_on(
    make_session, split, tmp_path: Path, monkeypatch, form: str, after: int
) -> None:
    """Every write to the disk, counted: at the n-th nothing is done and nothing more happens, as at a kill."""
    monkeypatch.setattr(module, "BLOCK_BYTES", 1)
    session = make_session()
    manifest = made(session, split, form=form)
    write_features(session, split, tmp_path / "whole", manifest, batch_size=16)
    count = 0

    def dying(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count >= after:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "write_bytes", dying(atomic.write_bytes))
        patched.setattr(module.os, "fsync", dying(module.os.fsync))
        patched.setattr(module.os, "replace", dying(module.os.replace))
        killed = False
        try:
            write_features(session, split, tmp_path / "f", manifest, batch_size=16)
        except Killed:
            killed = True
    assert killed or count < after
    again = write_features(session, split, tmp_path / "f", manifest, batch_size=16)
    assert again.done == 40
    if form == "npy":
        for name in ("features.npy", "labels.npy"):
            assert (tmp_path / "f" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    else:
        assert parquet.read_table(tmp_path / "f").equals(parquet.read_table(tmp_path / "whole"))


def test_a_block_is_all_that_is_in_memory(make_session, split, tmp_path: Path, monkeypatch) -> None:
    session = make_session()
    monkeypatch.setattr(module, "BLOCK_BYTES", 2 * 8 * 16 * 4)
    written = []
    original = module._write_npy

    def write(folder, manifest, rows, labels) -> None:
        written.append((manifest.done, len(rows)))
        original(folder, manifest, rows, labels)

    monkeypatch.setattr(module, "_write_npy", write)
    write_features(session, split, tmp_path / "f", made(session, split), batch_size=8)
    assert written == [(0, 16), (16, 16), (32, 8)]


def test_complete_features_are_not_computed_again(make_session, split, tmp_path: Path, monkeypatch) -> None:
    session = make_session()
    manifest = made(session, split)
    write_features(session, split, tmp_path / "f", manifest)
    monkeypatch.setattr(type(session), "activations", None)
    assert write_features(session, split, tmp_path / "f", manifest).done == 40


def test_features_of_other_weights_are_refused(make_session, split, tmp_path: Path) -> None:
    session, other = make_session(), make_session(seed=5)
    assert fingerprint(session) != fingerprint(other)
    assert fingerprint(session) == fingerprint(make_session("numba", "cpu:0,cpu:1"))  # where it runs is no matter
    assert fingerprint(session) != fingerprint(make_session(norm_k=1.0))
    write_features(session, split, tmp_path / "f", made(session, split))
    with pytest.raises(CheckpointError, match="another network or weights"):
        write_features(other, split, tmp_path / "f", made(other, split))


def test_features_of_other_images_or_layers_are_refused(make_session, split, tmp_path: Path) -> None:
    session = make_session()
    write_features(session, split, tmp_path / "f", made(session, split))
    fewer = ArraySplit(split.read(np.arange(30)), split.labels[:30])
    other = ArraySplit(split.read(np.arange(40)).copy(), split.labels)
    other.images[17, 0, 3, 3] ^= 1  # one pixel of one image
    relabelled = ArraySplit(split.read(np.arange(40)), np.roll(split.labels, 1))
    cases = (
        (split, made(session, split, "fc6"), "a different layer .relu7, not fc6"),
        (fewer, made(session, fewer), "a different number of images .40, not 30"),
        (relabelled, made(session, relabelled), "other images"),
        (other, made(session, other), "other images"),
        (split, made(session, split, form="parquet"), "a different format"),
        (split, dataclasses.replace(made(session, split), split="train"), "a different split"),
    )
    for part, manifest, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            write_features(session, part, tmp_path / "f", manifest)


def test_of_a_large_set_some_images_are_compared(monkeypatch) -> None:
    """Spread from the first to the last; the same images give the same digest."""
    monkeypatch.setattr(module, "COMPARED", 10)
    images = np.random.default_rng(0).integers(0, 256, (91, 3, 4, 4), np.uint8)
    labels = np.zeros(91, np.int64)
    digest = module.content(ArraySplit(images, labels))
    assert digest == module.content(ArraySplit(images.copy(), labels))
    for index in (0, 50, 90):
        other = images.copy()
        other[index] += 1
        assert module.content(ArraySplit(other, labels)) != digest


def test_a_folder_of_before_images_were_compared_is_not_used(make_session, split, tmp_path: Path) -> None:
    session = make_session()
    write_features(session, split, tmp_path / "f", made(session, split))
    path = tmp_path / "f" / module.MANIFEST
    fields = json.loads(path.read_text())
    del fields["content"]
    path.write_text(json.dumps(fields))
    with pytest.raises(DataError, match="did not compare images: remove it"):
        write_features(session, split, tmp_path / "f", made(session, split))


def test_a_folder_of_something_else_is_left_alone(make_session, split, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    session = make_session()
    with pytest.raises(ConfigurationError, match="neither empty nor"):
        write_features(session, split, tmp_path, made(session, split))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": "minialex features"}', '{"format": "x"}', None, -1, 99],
)
def test_a_damaged_manifest_is_said_to_be(make_session, split, tmp_path: Path, text) -> None:
    session = make_session()
    write_features(session, split, tmp_path / "f", made(session, split))
    path = tmp_path / "f" / "_features.json"
    if text is None:
        path.unlink()
    elif isinstance(text, int):
        path.write_text(json.dumps({**json.loads(path.read_text()), "done": text}))
    else:
        path.write_text(text)
    with pytest.raises(DataError, match=r"_features\.json is (missing|damaged)|did not compare images"):
        open_features(tmp_path / "f")


@pytest.mark.parametrize("name", ["features.npy", "labels.npy"])
@pytest.mark.parametrize("damage", ["gone", "short", "object", "shape"])
def test_damaged_arrays_are_said_to_be(make_session, split, tmp_path: Path, name: str, damage: str) -> None:
    session = make_session()
    write_features(session, split, tmp_path / "f", made(session, split))
    path = tmp_path / "f" / name
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-8])
    elif damage == "object":
        np.save(path, np.array([{}], object), allow_pickle=True)
    else:
        np.save(path, np.zeros(3, np.float32))
    with pytest.raises(DataError, match="damaged"):
        open_features(tmp_path / "f")


def test_a_disk_that_is_too_small_is_said_before_anything_is_computed(
    make_session, split, tmp_path: Path, monkeypatch
) -> None:
    session = make_session()
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: type("usage", (), {"free": 100})())
    monkeypatch.setattr(type(session), "activations", None)
    with pytest.raises(ResourceError, match=r"40 images need 2\.6 kB in .*, where 100 bytes are free"):
        write_features(session, split, tmp_path / "f", made(session, split))


def test_two_writers_do_not_meet(make_session, split, tmp_path: Path) -> None:
    session = make_session()
    manifest = made(session, split)
    refused = []

    def second() -> bool:
        try:
            write_features(session, split, tmp_path / "f", manifest)
        except ConfigurationError as error:
            refused.append(str(error))
        return False

    write_features(session, split, tmp_path / "f", manifest, stop=second)
    assert "written by another process" in refused[0]


def test_empty_sets_and_unknown_words_are_refused(make_session, split, tmp_path: Path) -> None:
    session = make_session()
    with pytest.raises(ConfigurationError, match=r"no format 'parket'.*Did you mean 'parquet'"):
        made(session, split, form="parket")
    with pytest.raises(ConfigurationError, match="no layer"):
        made(session, split, "fc9")
    empty = ArraySplit(np.zeros((0, 3, 32, 32), np.uint8), np.zeros(0, np.int64))
    with pytest.raises(DataError, match="no images"):
        write_features(session, empty, tmp_path / "f", made(session, empty))
