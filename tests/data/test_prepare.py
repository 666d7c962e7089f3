"""Preparing: every kind of image stored or listed, the same bytes however often it is killed, nothing torn."""

import gc
import hashlib
import io
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from minialex.data import images, load
from minialex.data.dataset import statistics_of
from minialex.data.store import prepare, store
from minialex.data.store.prepare import Stopped
from minialex.errors import ConfigurationError, DataError, ResourceError
from minialex.storage.locks import locked_folder

SIZE = 32
MINIALEX = [sys.executable, "-c", "from minialex.cli.app import main; main()"]


def picture(seed, width=48, height=40):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write(path, image, form="JPEG", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, form, **options)


def make_folder(root, classes=3, count=30):
    """An ImageFolder with a validation part of a third of the size."""
    for part, images_each in (("train", count), ("val", count // 3)):
        for label in range(classes):
            for i in range(images_each):
                write(root / part / f"class{label}" / f"{i:03d}.jpg", picture(1000 * label + i + (part == "val") * 500))
    return root


def sums(place):
    """SHA-256 of everything in a store, by name."""
    assert all(path.is_file() for path in place.iterdir()), "nothing else may be left"
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in place.iterdir()}


def rows(path):
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
    return {row[1]: row[2] for row in lines}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photos") / "photos")


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A store made in one go."""
    place = tmp_path_factory.mktemp("whole") / "store"
    found = prepare.prepare(photos, place, size=SIZE, workers=1)
    assert (found.images, found.classes, found.decoded) == ({"train": 90, "validation": 30}, 3, 120)
    assert (found.left_out, found.treated, found.missing, found.already) == ({}, {}, (), False)
    return place


def test_a_store_holds_what_the_folder_holds(photos, whole):
    folder, data = load(str(photos), size=SIZE), load(str(whole))
    assert data.name == "photos"
    assert data.class_names == folder.class_names
    for part in ("train", "validation"):
        ours, theirs = getattr(data, part), getattr(folder, part)
        assert np.array_equal(ours.labels, theirs.labels)
        order = np.random.default_rng(0).permutation(len(ours))
        assert np.array_equal(ours.read(order), theirs.read(order))
    direct = statistics_of(folder.train)
    assert np.array_equal(data.statistics.mean, direct.mean)
    assert np.array_equal(data.statistics.covariance, direct.covariance)
    assert store.check(whole) == []
    assert sorted(path.name for path in whole.glob("*.images")) == [
        "train-00000.images", "train-00001.images", "validation-00000.images"]  # fmt: skip
    assert (whole / "train-00000.images").stat().st_size == 64 * 3 * SIZE**2


def test_without_a_validation_part_the_same_tenth_as_of_a_folder(photos, tmp_path):
    prepare.prepare(photos / "train", tmp_path / "s", size=SIZE, workers=1)
    folder, data = load(str(photos / "train"), size=SIZE), load(str(tmp_path / "s"))
    assert len(data.validation) == 9
    assert np.array_equal(data.validation.read(np.arange(9)), folder.validation.read(np.arange(9)))
    assert np.array_equal(data.train.labels, folder.train.labels)


def test_any_number_of_processes_gives_the_same_bytes(photos, whole, tmp_path):
    found = prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=3)
    assert found.decoded == 120
    assert sums(tmp_path / "s") == sums(whole)
    again = prepare.prepare(photos, tmp_path / "s", size=SIZE)
    assert (again.already, again.decoded, again.images) == (True, 0, found.images)
    with pytest.raises(ConfigurationError, match="made with --size 32, not 64"):
        prepare.prepare(photos, tmp_path / "s", size=64)
    assert sums(tmp_path / "s") == sums(whole)


@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_and_begun_again(photos, whole, tmp_path, monkeypatch, workers):
    done = []
    slow = prepare.decode
    monkeypatch.setattr(prepare, "decode", lambda *args: time.sleep(0.01) or slow(*args))  # of this process
    with pytest.raises(Stopped):
        prepare.prepare(
            photos,
            tmp_path / "s",
            size=SIZE,
            workers=workers,
            progress=lambda what, images, total: done.append(images),
            stop=lambda: done[-1] > 70 or workers == 2,
        )
    monkeypatch.undo()
    if workers == 1:  # a shard is there, and is not made again
        made = tmp_path / "s" / "train-00000.images"
        before = made.stat().st_mtime_ns
    assert not store.is_store(tmp_path / "s")
    with pytest.raises(DataError, match="not finished"):
        load(str(tmp_path / "s"))
    prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=workers)
    assert sums(tmp_path / "s") == sums(whole)
    assert workers == 2 or made.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("seed", [0, 1])
def test_killed_again_and_again_gives_the_same_bytes(photos, tmp_path, seed):
    many = tmp_path / "list.txt"
    many.write_text("".join(f"{photos}/train/class{i % 3}/{i % 30:03d}.jpg {i % 3}\n" for i in range(3000)))
    prepare.prepare(many, tmp_path / "whole", size=64, workers=1)
    place, wait = tmp_path / "s", random.Random(seed)
    command = [*MINIALEX, "prepare", str(many), str(place), "--size", "64", "--workers", "2"]
    kills = 0
    while True:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        # Any moment from the start of the work on: a kill while Python still imports proves nothing.
        while process.poll() is None and not (place / "prepare").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        try:
            process.wait(timeout=wait.uniform(0, 0.4 + 0.3 * kills) if kills < 4 else 120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        _, stderr = process.communicate()
        assert process.returncode == 0, stderr
        break
    assert kills > 1
    assert sums(place) == sums(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_a_parent_that_is_killed_leaves_no_process_and_sigterm_stops_politely(photos, tmp_path):
    psutil = pytest.importorskip("psutil")
    place = tmp_path / "s"
    many = tmp_path / "list.txt"  # the same images over and over: long enough to be caught at it
    many.write_text("".join(f"{photos}/train/class{i % 3}/{i % 30:03d}.jpg {i % 3}\n" for i in range(60_000)))
    command = [*MINIALEX, "prepare", str(many), str(place), "--size", "64", "--workers", "2"]

    def working():
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 60
        while not list(place.glob(".tmp-*images")) and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        return process

    process = working()
    children = psutil.Process(process.pid).children(recursive=True)
    assert children
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert alive == []
    for number, code in ((signal.SIGTERM, 75), (signal.SIGINT, 130)):
        for path in place.glob(".tmp-*"):
            path.unlink()
        process = working()
        process.send_signal(number)
        out, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert "run the same command again to continue" in out
        assert stderr == ""
        assert not list(place.glob(".tmp-*"))


def test_a_worker_that_is_killed_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "ProcessPoolExecutor", _BrokenPool)
    with pytest.raises(ResourceError, match=r"was killed.*continue, with fewer --workers"):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=2)
    monkeypatch.undo()
    prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1)


class _BrokenPool(prepare.ProcessPoolExecutor):
    def submit(self, function, *arguments):
        return super().submit(os._exit, 9)


@pytest.fixture
def mixed(tmp_path):
    """A folder with an image of every awkward kind beside sound ones, and what must become of each."""
    root = tmp_path / "mixed"
    for i in range(4):
        write(root / "b" / f"{i}.jpg", picture(i))
    write(root / "a" / "sound.jpg", picture(7))
    write(root / "a" / "grey.jpg", Image.fromarray(picture(8)).convert("L"))
    write(root / "a" / "cmyk.jpg", Image.fromarray(picture(9)).convert("CMYK"))
    write(root / "a" / "png.JPEG", picture(10), "PNG")
    exif = Image.Exif()
    exif[0x0112] = 6
    write(root / "a" / "turned.jpg", picture(11), exif=exif)
    write(root / "a" / "deep.png", Image.new("I;16", (40, 40), 30000), "PNG")
    write(root / "a" / "palette.png", Image.fromarray(picture(12)).convert("P"), "PNG")
    sound = (root / "a" / "sound.jpg").read_bytes()
    (root / "a" / "cut.jpg").write_bytes(sound[: len(sound) // 2])
    (root / "a" / "nothing.jpg").write_bytes(b"")
    (root / "a" / "text.jpg").write_bytes(b"<html>404</html>")
    (root / "a" / "readme.txt").write_bytes(b"hello")
    bomb = io.BytesIO()
    Image.new("1", (9000, 9000)).save(bomb, "PNG")
    (root / "a" / "bomb.png").write_bytes(bomb.getvalue())
    treated = {
        "a/grey.jpg": "grey", "a/cmyk.jpg": "CMYK", "a/png.JPEG": "PNG named JPEG", "a/turned.jpg": "EXIF rotation",
        "a/deep.png": "16-bit grey", "a/palette.png": "palette",
    }  # fmt: skip
    left_out = {
        "a/cut.jpg": "damaged or cut short", "a/nothing.jpg": "empty", "a/text.jpg": "in a supported format",
        "a/readme.txt": "no image by its name", "a/bomb.png": "9000 x 9000 pixels, more than 64,000,000",
    }  # fmt: skip
    return root, treated, left_out


@pytest.mark.parametrize("workers", [1, 2])
def test_awkward_images_are_treated_or_left_out_and_listed(mixed, tmp_path, workers):
    root, treated, left_out = mixed
    found = prepare.prepare(root, tmp_path / "s", size=SIZE, workers=workers)
    assert sum(found.images.values()) == 11
    assert {**rows(tmp_path / "s" / "treated.tsv")} == treated
    listed = rows(tmp_path / "s" / "left-out.tsv")
    assert listed.keys() == left_out.keys()
    for name, reason in left_out.items():
        assert reason in listed[name]
    assert found.left_out["no image by its name, .txt"] == 1
    data = load(str(tmp_path / "s"))
    for split in (data.train, data.validation):
        for i in range(len(split)):
            expected = images.read_image(root / split.name(i), SIZE)
            assert np.array_equal(split.read(np.array([i]))[0], expected)
    assert store.check(tmp_path / "s") == []


def test_words_come_along(photos, tmp_path):
    (tmp_path / "words.txt").write_text("class0 a fish, tench\nclass1 a bird\nclass2 a dog\n")
    prepare.prepare(photos, tmp_path / "s", size=SIZE, words=str(tmp_path / "words.txt"), workers=1)
    data = load(str(tmp_path / "s"))
    assert data.words == data.titles == ("a fish, tench", "a bird", "a dog")
    assert data.class_names == ("class0", "class1", "class2")


def test_a_class_whose_images_all_fail_is_told(mixed, tmp_path):
    root, *_ = mixed
    (root / "c").mkdir()
    (root / "c" / "bad.jpg").write_bytes(b"no")
    found = prepare.prepare(root, tmp_path / "s", size=SIZE, workers=1)
    assert found.missing == ("c",)


def test_a_source_of_nothing_usable(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/3.jpg"):
        (tmp_path / "x" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x" / name).write_bytes(b"no")
    for _ in range(2):
        with pytest.raises(DataError, match=r"not one train image could be used; a/1\.jpg: not an image"):
            prepare.prepare(tmp_path / "x", tmp_path / "s", size=SIZE, workers=1)
    assert not store.is_store(tmp_path / "s")


def test_what_is_refused(photos, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    with pytest.raises(ConfigurationError, match=r"holds 'thesis\.tex'"):
        prepare.prepare(photos, tmp_path / "full", size=SIZE)
    assert (tmp_path / "full" / "thesis.tex").read_text() == "x"
    with pytest.raises(ConfigurationError, match="size = 4 "):
        prepare.prepare(photos, tmp_path / "s", size=4)
    with pytest.raises(Stopped):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1, stop=lambda: True)
    for changed, message in (
        ({"size": 64}, "with --size 32, not 64"),
        ({"size": SIZE, "validation": str(photos / "val")}, "with --validation none"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            prepare.prepare(photos, tmp_path / "s", workers=1, **changed)
    with pytest.raises(ConfigurationError, match=r"was begun of .*, not of "):
        prepare.prepare(photos / "train", tmp_path / "s", size=SIZE, workers=1)
    with locked_folder(tmp_path / "s", ""), pytest.raises(ConfigurationError, match="another process is preparing it"):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1)
    (tmp_path / "s" / "prepare" / "train").write_text("{}\n")
    with pytest.raises(DataError, match=r"prepare/train: damaged"):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1)


def test_a_source_that_went_away_makes_no_empty_store(tmp_path):
    photos = make_folder(tmp_path / "photos", count=3)
    with pytest.raises(Stopped):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1, stop=lambda: True)
    photos.rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is no longer there"):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1)


def test_a_full_disk_is_named_and_preparing_goes_on(photos, whole, tmp_path, monkeypatch):
    from minialex.storage import atomic

    write_and_sync = atomic._write_and_sync
    room = [70 * 3 * SIZE**2]

    def limited(file, chunks):
        def counted():
            for chunk in chunks:
                room[0] -= memoryview(chunk).nbytes
                if room[0] < 0:
                    raise OSError(28, "No space left on device")
                yield chunk

        return write_and_sync(file, counted())

    monkeypatch.setattr(atomic, "_write_and_sync", limited)
    with pytest.raises(ResourceError, match="the disk is full"):
        prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1)
    monkeypatch.undo()
    prepare.prepare(photos, tmp_path / "s", size=SIZE, workers=1)
    assert sums(tmp_path / "s") == sums(whole)


def test_memory_does_not_grow_with_the_set(photos, tmp_path):
    """What a process allocates at the worst moment grows by some bytes an image (lists), not by its pixels."""
    import tracemalloc

    peaks = []
    for count in (500, 4000):
        gc.collect()
        (tmp_path / f"{count}.txt").write_text(
            "".join(f"{photos}/train/class{i % 3}/{i % 30:03d}.jpg {i % 3}\n" for i in range(count))
        )
        tracemalloc.start()
        prepare.prepare(tmp_path / f"{count}.txt", tmp_path / str(count), size=64, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4000 * 600, peaks  # each has 12,288 bytes of pixels


def test_shard_sizes_are_a_function_of_the_number_alone():
    found = {n: prepare._shard_size(n) for n in (1, 64, 4096, 4097, 50_000, 131_072, 1_281_167)}
    assert found == {1: 64, 64: 64, 4096: 64, 4097: 128, 50_000: 832, 131_072: 2048, 1_281_167: 2048}


def test_a_source_that_is_not_there_leaves_no_folder(tmp_path):
    with pytest.raises(DataError):
        prepare.prepare(tmp_path / "nothing", tmp_path / "store")
    assert list(tmp_path.iterdir()) == []


# ---- a store that is there already ------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path):
    """A folder of 12 images, and its store."""
    root = make_folder(tmp_path / "photos", classes=2, count=3)
    prepare.prepare(root, tmp_path / "s", size=SIZE, workers=1)
    return root, tmp_path / "s"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"size": 64}, "is a store that was made with --size 32, not 64"),
        ({"resize": "resize-then-crop"}, "was made with --resize one-step, not resize-then-crop"),
        ({"validation": "photos/train"}, "was made with --validation none, not .*photos/train"),
        (
            {"source": "photos/train"},
            r"is a store that was made of .*photos, not of .*photos/train: give a new folder",
        ),
    ],
)
def test_a_finished_store_of_something_else_is_refused(small, monkeypatch, how, message):
    root, place = small
    monkeypatch.chdir(root.parent)
    before = sums(place)
    with pytest.raises(ConfigurationError, match=message):
        prepare.prepare(**{"source": "photos", "place": place, "size": SIZE, **how})
    assert sums(place) == before


def test_a_store_of_the_first_format_is_known_by_its_name(small):
    import json

    root, place = small
    body = json.loads((place / "store.json").read_bytes())
    for name in ("resize", "source", "validation", "words_file", "listed", "sha256"):
        del body[name]
    body["format"] = "minialex store 1"
    (place / "store.json").write_text(json.dumps({**body, "sha256": store._own_sum(body)}))
    assert len(load(str(place)).train) == 6
    assert prepare.prepare(root, place, size=SIZE).already
    with pytest.raises(ConfigurationError, match="is a store of 'photos', not of"):
        prepare.prepare(root / "train", place, size=SIZE)
    body["format"] = "minialex store 3"
    (place / "store.json").write_text(json.dumps({**body, "sha256": store._own_sum(body)}))
    with pytest.raises(
        DataError, match="'minialex store 3' is not supported, only 'minialex store 2': update minialex"
    ):
        load(str(place))


@pytest.mark.parametrize("change", ["added", "removed", "renamed", "edited", "class"])
def test_a_source_that_has_changed_since_is_said(small, change):
    root, place = small
    one = root / "train" / "class0" / "000.jpg"
    if change == "added":
        write(root / "train" / "class1" / "new.jpg", picture(1))
    elif change == "class":
        write(root / "train" / "class2" / "new.jpg", picture(1))
    elif change == "removed":
        one.unlink()
    elif change == "renamed":
        one.rename(one.with_name("other.jpg"))
    else:
        write(one, picture(99))
        os.utime(one, (time.time() + 10, time.time() + 10))
    expected = (
        "1 of the files of .* are newer than the store" if change == "edited" else "photos has changed since the store"
    )
    before = sums(place)
    with pytest.raises(ConfigurationError, match=f"{expected}.*prepare it into a new folder, or remove this one"):
        prepare.prepare(root, place, size=SIZE)
    assert sums(place) == before
    assert store.check(place) == []


def test_a_source_that_is_gone_is_said(small):
    root, place = small
    root.rename(root.with_name("elsewhere"))
    found = prepare.prepare(root, place, size=SIZE)
    assert found.already
    assert found.notes == (f"{root} is no longer there: not compared",)


def test_a_store_within_its_own_source(tmp_path, monkeypatch):
    make_folder(tmp_path / "photos", classes=2, count=12)
    monkeypatch.chdir(tmp_path / "photos" / "train")
    first = prepare.prepare(".", "./store", size=SIZE, workers=1)
    assert (first.classes, sum(first.images.values())) == (2, 24)
    assert prepare.prepare(".", "./store", size=SIZE, workers=1).already
    assert prepare.prepare(".", "./other", size=SIZE, workers=1).classes == 2
    assert load(".", size=SIZE).class_names == ("class0", "class1")


def test_one_class_is_no_store(tmp_path):
    write(tmp_path / "photos" / "cats" / "0.jpg", picture(0))
    write(tmp_path / "photos" / "cats" / "1.jpg", picture(1))
    with pytest.raises(DataError, match="photos: contains only one class, 'cats'"):
        prepare.prepare(tmp_path / "photos", tmp_path / "s", size=SIZE)
    assert not (tmp_path / "s").exists()


def test_the_other_order_of_resizing(small, tmp_path):
    root, _ = small
    prepare.prepare(root, tmp_path / "other", size=SIZE, resize="resize-then-crop", workers=1)
    with pytest.raises(
        ConfigurationError, match="was prepared with --resize resize-then-crop, not one-step: set --resize"
    ):
        load(str(tmp_path / "other"))
    data = load(str(tmp_path / "other"), resize="resize-then-crop")
    direct = load(str(root), size=SIZE, resize="resize-then-crop")
    assert np.array_equal(data.train.read(np.arange(6)), direct.train.read(np.arange(6)))
    assert not np.array_equal(data.train.read(np.arange(6)), load(str(root), size=SIZE).train.read(np.arange(6)))
    with pytest.raises(ConfigurationError, match=r"resize = 'crop'; use one of one-step, resize-then-crop"):
        prepare.prepare(root, tmp_path / "third", size=SIZE, resize="crop")
