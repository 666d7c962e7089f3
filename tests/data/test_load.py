"""Names, places and paths; subsets; and what importing costs."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minialex import data
from minialex.data.dataset import ArraySplit, some, statistics_of
from minialex.data.sets import cifar10
from minialex.errors import ConfigurationError, DataError


def test_importing_needs_numpy_alone():
    code = (
        "import sys\n"
        "for name in ('PIL', 'pooch', 'requests', 'matplotlib', 'rich', 'safetensors'): sys.modules[name] = None\n"
        "import minialex.data\n"
        "set = minialex.data.load('shapes', train_images=20, validation_images=10)\n"
        "print(set.train.read(range(3)).shape)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("(3, 3, 32, 32)\n", "")


def test_shapes_by_default():
    found = data.load("shapes", train_images=40, validation_images=10, seed=2)
    assert (found.name, found.train.size, len(found.train), len(found.validation)) == ("shapes", 32, 40, 10)
    assert not np.array_equal(found.train.read(np.arange(10)), found.validation.read(np.arange(10)))
    assert data.load("shapes", size=9, train_images=1, validation_images=1).train.size == 9


@pytest.mark.parametrize(("source", "message"), [
    ("shape", r"Did you mean 'shapes'\?"), ("cifar-10", r"Did you mean 'cifar10'\?"), ("CIFAR10x", "is unknown"),
    ("fashionmnist", r"Did you mean 'fashion-mnist'\?"), ("", "is unknown"), ("cifar10:", "after the colon"),
    ("shapes:/tmp", "are drawn, not read"), ("cifra10:/tmp/x", None)])  # fmt: skip
def test_unknown_names(source, message, nowhere):
    with pytest.raises((ConfigurationError, DataError), match=message) as caught:
        data.load(source)
    assert "\n" not in str(caught.value)


def test_paths(tmp_path, nowhere):
    with pytest.raises(DataError, match="no such folder"):
        data.load(str(tmp_path / "missing"))
    with pytest.raises(DataError, match="no such folder"):
        data.load("./missing")
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"")
    with pytest.raises(DataError, match=f"given as cifar10:{archive}"):
        data.load(str(archive))
    for i in range(10):
        (nowhere / "photos" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), (i, 0, 0)).save(nowhere / "photos" / "ab"[i % 2] / f"{i}.png")
    found = data.load("photos", size=16)
    assert (found.name, found.train.size, len(found.train), len(found.validation)) == ("photos", 16, 9, 1)
    assert data.load("./photos").train.size == 256
    (nowhere / "photos").rename(nowhere / "cifar10")
    with pytest.raises(DataError, match="minialex download"):  # a name goes before a folder of that name
        data.load("cifar10")
    assert len(data.load("./cifar10", size=16).train) == 9


@pytest.mark.parametrize("changed", [{"size": 64}, {"train_images": 0}, {"validation_images": -5}])
def test_numbers_that_cannot_be_used(changed, monkeypatch):
    monkeypatch.setattr(cifar10, "load", lambda place: pytest.fail("read before the check"))
    with pytest.raises(ConfigurationError, match=next(iter(changed))):
        data.load("cifar10", **changed)


def test_a_part_of_a_real_set_is_chosen_by_the_seed():
    images = np.arange(100, dtype=np.uint8)[:, None, None, None] * np.ones((1, 3, 2, 2), np.uint8)
    whole = ArraySplit(images, np.arange(100) // 10)
    few = some(whole, 30, seed=0, purpose="data/some/train")
    chosen = few.read(np.arange(30))[:, 0, 0, 0].astype(int)
    assert (len(few), few.size) == (30, 2)
    assert (np.diff(chosen) > 0).all()
    assert np.array_equal(few.labels, chosen // 10)
    assert len(np.unique(few.labels)) > 5  # not simply the first ones
    assert np.array_equal(few.read(np.array([3, 1])), images[chosen[[3, 1]]])
    assert np.array_equal(
        some(whole, 30, seed=0, purpose="data/some/train").read(np.arange(30)), few.read(np.arange(30))
    )
    assert not np.array_equal(some(whole, 30, seed=1, purpose="data/some/train").labels, few.labels)
    assert some(whole, None, seed=0, purpose="x") is whole
    assert some(whole, 100, seed=0, purpose="x") is whole


def test_arrays_that_do_not_fit():
    images, labels = np.zeros((4, 3, 5, 5), np.uint8), np.zeros(4, np.int64)
    for wrong_images, wrong_labels in (
        (images[:, :, :4], labels), (images[:, :2], labels), (images, labels[:3]), (images.astype(float), labels),
        (images, labels.astype(np.int32)), (images[0], labels),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="images must be"):
            ArraySplit(wrong_images, wrong_labels)


def test_cifar10_by_name_and_place(real_data):
    found = data.load(f"cifar10:{real_data}", train_images=500, validation_images=100)
    assert (found.name, len(found.train), len(found.validation), found.train.size) == ("cifar10", 500, 100, 32)
    colours = statistics_of(found.train)
    assert np.abs(colours.mean.mean(axis=(1, 2)) - (125.3, 123.0, 113.9)).max() < 6
    assert colours.eigenvalues[0] > 5 * colours.eigenvalues[1]  # brightness
    assert colours.eigenvectors[:, 0] == pytest.approx(np.full(3, 3**-0.5), abs=0.1)
