"""Reading and checking stores: what is damaged is named, nothing damaged is trained on, any thread may read."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from minialex.cli.app import run
from minialex.data import batches, epoch_order, load
from minialex.data.store import prepare, store
from minialex.errors import ConfigurationError, DataError

SIZE = 16
BYTES = 3 * SIZE**2


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for label in range(2):
        (root / "p" / f"c{label}").mkdir(parents=True)
        for i in range(80):
            pixels = rng.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(root / "p" / f"c{label}" / f"{i:02d}.png")
    prepare.prepare(root / "p", root / "s", size=SIZE, workers=1)
    return root / "s"


@pytest.fixture
def copy(original, tmp_path):
    """A store to be damaged: 144 training images in shards of 64, 64 and 16, and 16 for validation."""
    place = tmp_path / "s"
    place.mkdir()
    for path in original.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    return place


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_a_sound_store(original, capsys):
    told = []
    assert store.check(original, workers=2, progress=lambda done, total: told.append((done, total))) == []
    assert told[-1] == (160, 160)
    assert run(["store", "check", str(original)]) == 0
    assert "sound, 160 images" in capsys.readouterr().out


@pytest.mark.parametrize("image", [0, 63, 64, 100, 143])
@pytest.mark.parametrize("inside", [0, BYTES - 1])
def test_one_bit_is_found_by_name_and_offset(copy, image, inside, capsys):
    shard, row = divmod(image, 64)
    flip(copy / f"train-{shard:05d}.images", row * BYTES + inside)
    damages = store.check(copy)
    assert [(d.file, d.offset) for d in damages] == [(f"train-{shard:05d}.images", row * BYTES)]
    assert damages[0].what.startswith(f"image {row} (c")
    assert run(["store", "check", str(copy)]) == 3
    out, err = capsys.readouterr()
    assert f"train-{shard:05d}.images, byte {row * BYTES:,}" in out
    assert f"first in train-{shard:05d}.images at byte {row * BYTES:,}" in err
    split = load(str(copy)).train
    with pytest.raises(DataError, match=rf"train-{shard:05d}.images: the image at byte {row * BYTES:,} is damaged"):
        split.read(np.array([image]))
    others = np.setdiff1d(np.arange(144), [image])
    split.read(others)
    with pytest.raises(DataError):
        list(batches(split, epoch_order(144, seed=0, epoch=1), 16))


def test_several_damages_are_all_told(copy):
    for place in (3, 10):
        flip(copy / "train-00001.images", place * BYTES)
    flip(copy / "validation-00000.images", 5)
    flip(copy / "left-out.tsv", 1)
    (copy / "train-00002.images").unlink()
    found = store.check(copy)
    assert [(d.file, d.offset) for d in found] == [
        ("left-out.tsv", -1),
        ("train-00001.images", 3 * BYTES),
        ("train-00001.images", 10 * BYTES),
        ("train-00002.images", -1),
        ("validation-00000.images", 0),
    ]


@pytest.mark.parametrize("change", [-1, -BYTES, 7, BYTES])
def test_a_shard_of_the_wrong_size(copy, change):
    path = copy / "train-00002.images"
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + b"x" * change)
    found = store.check(copy)
    assert found[0].file == path.name
    assert found[0].offset == min(len(data) + change, len(data))
    split = load(str(copy)).train
    split.read(np.arange(128))
    with pytest.raises(DataError, match=r"train-00002\.images: .* bytes, expected"):
        split.read(np.array([130]))


@pytest.mark.parametrize("name", ["train-00001.safetensors", "statistics.safetensors", "store.json"])
@pytest.mark.parametrize("how", ["bit", "cut", "gone", "empty"])
def test_the_other_files(copy, name, how):
    path = copy / name
    data = path.read_bytes()
    match how:
        case "bit":
            flip(path, len(data) // 2)
        case "cut":
            path.write_bytes(data[: len(data) // 2])
        case "gone":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
    if name == "store.json":
        with pytest.raises(DataError, match=r"store\.json"):
            store.check(copy)
        if how != "gone":
            with pytest.raises(DataError, match=r"store\.json: damaged"):
                load(str(copy))
    else:
        assert [d.file for d in store.check(copy)] == [name]
        with pytest.raises(DataError, match=name.replace(".", r"\.")):
            load(str(copy))


def test_a_store_of_another_version_and_another_size(copy):
    path = copy / "store.json"
    body = json.loads(path.read_text())
    body["format"] = "minialex store 9"
    del body["sha256"]
    body["sha256"] = store._own_sum(body)
    with pytest.raises(ConfigurationError, match=r"holds images of 16 x 16 pixels, not 32: set --image-size 16"):
        load(str(copy), size=32)
    path.write_text(json.dumps(body))
    with pytest.raises(DataError, match="'minialex store 9' is not supported"):
        load(str(copy))


@pytest.mark.parametrize("maps", [1, 512])
def test_threads_read_at_once_with_few_or_many_shards_open(original, monkeypatch, maps):
    monkeypatch.setattr(store, "_OPEN_MAPS", maps)
    split = load(str(original)).train
    expected = split.read(np.arange(144))
    failures = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(30):
            indices = rng.integers(0, 144, 20)
            if not np.array_equal(split.read(indices), expected[indices]):
                failures.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_loader_gives_the_same_batches_with_any_number_of_threads(original, workers):
    order = epoch_order(144, seed=5, epoch=3)
    expected = [b[1].copy() for b in batches(load(str(original)).train, order, 10, prefetch=0)]
    for start in (0, 6):
        found = [b[1] for b in batches(load(str(original)).train, order, 10, start=start, workers=workers)]
        assert len(found) == 14 - start
        assert all(np.array_equal(a, b) for a, b in zip(found, expected[start:], strict=True))


def test_indices(original):
    split = load(str(original)).train
    assert np.array_equal(split.read(np.array([-1])), split.read(np.array([len(split) - 1])))
    assert split.read(np.zeros(0, np.int64)).shape == (0, 3, SIZE, SIZE)
    with pytest.raises(IndexError):
        split.read(np.array([len(split)]))
    twice = split.read(np.array([5, 2, 5]))
    assert np.array_equal(twice[0], twice[2])
    twice[:] = 0  # what is given away is a copy
    assert split.read(np.array([5])).any()


def test_some_of_a_store_has_statistics_of_its_own(original):
    assert load(str(original)).statistics is not None
    assert load(str(original), validation_images=3).statistics is not None
    assert load(str(original), train_images=20).statistics is None
