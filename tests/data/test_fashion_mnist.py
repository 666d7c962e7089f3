"""IDX files: read whether compressed or not, and every kind of damage noticed."""

import gzip
import struct

import numpy as np
import pytest

from minialex.data.sets import fashion_mnist
from minialex.errors import DataError


def idx(array):
    """The bytes of an IDX file."""
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def pictures(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), np.uint8)


def files(**changed):
    """Names and contents of the four files; `changed` replaces arrays (or bytes) by part and kind."""
    values = {
        "train-images-idx3-ubyte": pictures(7, 0),
        "train-labels-idx1-ubyte": np.arange(7, dtype=np.uint8),
        "t10k-images-idx3-ubyte": pictures(4, 1),
        "t10k-labels-idx1-ubyte": np.array([9, 8, 7, 6], np.uint8),
    }
    for name, value in changed.items():
        values[name.replace("_", "-") + ("-idx3-ubyte" if "images" in name else "-idx1-ubyte")] = value
    return {name: value if isinstance(value, bytes) else idx(value) for name, value in values.items()}


def write(folder, compress=True, **changed):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files(**changed).items():
        (folder / (name + ".gz" if compress else name)).write_bytes(gzip.compress(content) if compress else content)
    return str(folder)


@pytest.mark.parametrize("compress", [True, False])
def test_images_are_padded_and_repeated(tmp_path, compress):
    data = fashion_mnist.load(write(tmp_path, compress))
    images = data.train.read(np.arange(7))
    assert images.shape == (7, 3, 32, 32)
    for channel in range(3):
        assert np.array_equal(images[:, channel, 2:30, 2:30], pictures(7, 0))
    assert images.sum() == 3 * pictures(7, 0).sum()  # the border is black
    assert data.train.labels.tolist() == list(range(7))
    assert data.validation.labels.tolist() == [9, 8, 7, 6]
    assert len(data.class_names) == 10


def test_found_in_the_usual_places(tmp_path, nowhere, monkeypatch):
    with pytest.raises(DataError, match="minialex download fashion-mnist"):
        fashion_mnist.load()
    write(nowhere / "debian")
    assert len(fashion_mnist.load().train) == 7
    write(tmp_path / "store" / "fashion-mnist", train_images=pictures(3, 0), train_labels=np.zeros(3, np.uint8))
    monkeypatch.setenv("MINIALEX_DATA", str(tmp_path / "store"))
    assert len(fashion_mnist.load().train) == 3  # before Debian's


WRONG = {
    "labels for images": ({"train_images": np.arange(7, dtype=np.uint8)}, "00 00 08 01"),
    "floats": ({"train_images": bytes((0, 0, 13, 3)) + bytes(100)}, "00 00 0d 03"),
    "a web page": ({"train_images": b"<!DOCTYPE html>"}, "begins with 3c 21 44 4f"),
    "empty": ({"train_images": b""}, "begins with nothing"),
    "header cut": ({"train_images": bytes((0, 0, 8, 3, 0, 0))}, "cut short in its header"),
    "cut": ({"train_images": idx(pictures(7, 0))[:-1]}, "cut short, 5,487 of 5,488 bytes"),
    "too long": ({"train_images": idx(pictures(7, 0)) + b"x"}, "more bytes than"),
    "too many": ({"train_images": bytes((0, 0, 8, 3)) + b"\xff" * 12}, "claims the shape"),
    "none": ({"train_images": pictures(0, 0), "train_labels": np.zeros(0, np.uint8)}, "claims the shape"),
    "another size": ({"train_images": np.zeros((7, 32, 32), np.uint8)}, "32 x 32, not 28 x 28"),
    "fewer labels": ({"train_labels": np.zeros(6, np.uint8)}, "6 labels for 7 images"),
    "label 10": ({"train_labels": np.full(7, 10, np.uint8)}, "label is 10"),
}  # fmt: skip


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_named(name, compress, tmp_path):
    changed, message = WRONG[name]
    with pytest.raises(DataError, match=message) as caught:
        fashion_mnist.load(write(tmp_path, compress, **changed))
    assert "train-" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte missing"):
        fashion_mnist.load(str(tmp_path))


def test_a_compressed_file_cut_or_damaged_anywhere(tmp_path):
    write(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for length in [*range(2, len(whole), 199), *range(len(whole) - 9, len(whole))]:
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match="train-images"):
            fashion_mnist.load(str(tmp_path))
    for position in range(12, len(whole), 131):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 16]) + whole[position + 1 :])
        with pytest.raises(DataError, match="train-images"):
            fashion_mnist.load(str(tmp_path))
