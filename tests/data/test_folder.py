"""Folders of images: layouts, every kind of image with its stated treatment, and damaged files named."""

import io
import json
import os
import random
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minialex.data import images
from minialex.data.sets import folder, layout
from minialex.data.sets.listing import Entry
from minialex.errors import ConfigurationError, DataError


def gradient(width, height):
    """A smooth RGB picture: red grows to the right, green downwards, blue is 100; uint8 [height, width, 3]."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 100)], axis=-1).astype(np.uint8)


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(path, **options)
    return path


def plain(path, colour, size=(10, 10)):
    return save(path, Image.new("RGB", size, colour))


def place(values):
    """Three grey values in the middle of the channels."""
    return values[:, values.shape[1] // 2, values.shape[2] // 2].tolist()


# ---- one image -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(64, 64), (128, 64), (64, 128), (33, 57), (9, 300)])
def test_shorter_side_scaled_and_the_centre_cut_out(tmp_path, width, height):
    values = images.read_image(save(tmp_path / "a.png", gradient(width, height)), 32).astype(float)
    assert values.shape == (3, 32, 32)
    side = min(width, height)
    across = ((width - side) / 2 + (np.arange(32) + 0.5) * side / 32 - 0.5) * 255 / (width - 1)
    down = ((height - side) / 2 + (np.arange(32) + 0.5) * side / 32 - 0.5) * 255 / (height - 1)
    inner = slice(4, -4)  # the filter is one-sided at the border
    assert np.abs(values[0][:, inner] - across[inner]).max() < 2
    assert np.abs(values[1][inner] - down[inner, None]).max() < 2
    assert np.abs(values[2] - 100).max() <= 1


@pytest.mark.parametrize(("ending", "options", "tolerance"), [
    ("jpg", {"quality": 95}, 3), ("JPEG", {"quality": 95, "progressive": True}, 3), ("png", {}, 0), ("bmp", {}, 0),
    ("webp", {"lossless": True}, 0), ("webp", {"quality": 95}, 3), ("tif", {}, 0), ("JFIF", {"format": "JPEG"}, 3),
    ("tiff", {"compression": "tiff_lzw"}, 0)])  # fmt: skip
def test_formats(tmp_path, ending, options, tolerance):
    expected = gradient(32, 32).transpose(2, 0, 1).astype(float)
    path = save(tmp_path / f"a.{ending}", gradient(32, 32), **options)
    assert np.abs(images.read_image(path, 32) - expected).mean() <= tolerance


def test_a_misnamed_image_is_read_by_its_content(tmp_path):
    path = save(tmp_path / "a.jpg", gradient(32, 32), format="PNG")  # ImageNet has such files
    assert np.array_equal(images.read_image(path, 32), gradient(32, 32).transpose(2, 0, 1))


def test_a_format_that_is_not_admitted(tmp_path):
    for form, ending in (("PCX", "jpg"), ("PPM", "png"), ("ICO", "png")):
        path = save(tmp_path / f"{form}.{ending}", gradient(32, 32), format=form)
        with pytest.raises(DataError, match=r"not an image in a supported format.*JPEG, PNG, BMP, GIF, WEBP, TIFF"):
            images.read_image(path, 16)


MODES = {
    "grey": (Image.new("L", (8, 8), 77), [77, 77, 77]),
    "black and white": (Image.new("1", (8, 8), 1), [255, 255, 255]),
    "palette": (Image.new("RGB", (8, 8), (255, 0, 51)).convert("P"), [255, 0, 51]),
    "16-bit grey": (Image.fromarray(np.full((8, 8), 0x8000, np.uint16)), [128, 128, 128]),
    "16-bit white": (Image.fromarray(np.full((8, 8), 0xFFFF, np.uint16)), [255, 255, 255]),
    "opaque": (Image.new("RGBA", (8, 8), (10, 20, 30, 255)), [10, 20, 30]),
    "transparent": (Image.new("RGBA", (8, 8), (10, 20, 30, 0)), [255, 255, 255]),
    "half transparent": (Image.new("RGBA", (8, 8), (0, 100, 255, 128)), [127, 177, 255]),
    "grey and transparent": (Image.new("LA", (8, 8), (50, 0)), [255, 255, 255]),
}


@pytest.mark.parametrize("name", MODES)
def test_modes(name, tmp_path):
    image, expected = MODES[name]
    got = place(images.read_image(save(tmp_path / "a.png", image), 8))
    assert np.abs(np.subtract(got, expected)).max() <= 1


@pytest.mark.parametrize(("value", "expected"), [(0, 0), (255, 1), (128, 0), (32896, 128), (65406, 254), (65535, 255)])
def test_16_bits_are_rounded_to_8(tmp_path, value, expected):
    path = save(tmp_path / "a.png", Image.fromarray(np.full((8, 8), value, np.uint16)))
    assert place(images.read_image(path, 8)) == [expected] * 3


def png(width, height, depth, kind, rows, *chunks):
    """A PNG made by hand, for what Pillow does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    pieces = [
        chunk(b"IHDR", header),
        *(chunk(*c) for c in chunks),
        chunk(b"IDAT", zlib.compress(rows)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(pieces)


def test_16_bit_colour_and_transparent_palettes(tmp_path):
    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x8080, 0) * 4
    (tmp_path / "rgb.png").write_bytes(png(4, 4, 16, 2, row * 4))
    assert place(images.read_image(tmp_path / "rgb.png", 4)) == [255, 128, 0]
    palette = (b"PLTE", bytes((200, 0, 0, 0, 200, 0)))
    rows = (b"\0" + bytes((1, 1, 1, 1))) * 4
    (tmp_path / "p.png").write_bytes(png(4, 4, 8, 3, rows, palette, (b"tRNS", bytes((255, 0)))))
    assert place(images.read_image(tmp_path / "p.png", 4)) == [255, 255, 255]
    (tmp_path / "key.png").write_bytes(png(4, 4, 8, 0, (b"\0" + bytes((9, 9, 9, 9))) * 4, (b"tRNS", b"\0\x09")))
    assert place(images.read_image(tmp_path / "key.png", 4)) == [255, 255, 255]


def test_cmyk(tmp_path):
    image = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # cyan
    assert images.read_image(save(tmp_path / "a.jpg", image, quality=95), 16)[:, 8, 8] == pytest.approx(
        (0, 255, 255), abs=3
    )


def test_animations_show_their_first_frame(tmp_path):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for form in ("gif", "webp", "png", "tiff"):
        path = save(tmp_path / f"a.{form}", frames[0], save_all=True, append_images=frames[1:],
                    **({"lossless": True} if form == "webp" else {}))  # fmt: skip
        assert place(images.read_image(path, 8)) == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    def mirrored(a):
        return a.transpose(1, 0, 2)

    turns = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
             5: mirrored, 6: lambda a: np.rot90(a, 1), 7: lambda a: mirrored(a[::-1, ::-1]),
             8: lambda a: np.rot90(a, -1)}  # fmt: skip
    upright = gradient(32, 32)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / "a.png", np.ascontiguousarray(turns[orientation](upright)), exif=exif)
    assert np.array_equal(images.read_image(path, 32), upright.transpose(2, 0, 1))


def test_a_damaged_exif_tag_counts_as_none(tmp_path):
    path = save(tmp_path / "a.png", gradient(32, 32), exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff\x01\x12garbage")
    assert np.array_equal(images.read_image(path, 32), gradient(32, 32).transpose(2, 0, 1))


def test_files_that_are_no_image(tmp_path):
    jpeg = io.BytesIO()
    Image.fromarray(gradient(64, 64)).save(jpeg, "JPEG")
    bad = {
        "empty": b"", "text": b"hello", "web page": b"<!DOCTYPE html>" * 50, "header alone": jpeg.getvalue()[:200],
        "cut": jpeg.getvalue()[:-100], "pdf": b"%PDF-1.7" + bytes(100), "gif header": b"GIF89a" + bytes(20),
        "bmp header": b"BM" + bytes(52), "webp header": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20),
    }  # fmt: skip
    for name, content in bad.items():
        path = tmp_path / f"{name}.jpg"
        path.write_bytes(content)
        with pytest.raises(DataError, match=name) as caught:
            images.read_image(path, 16)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no such image file"):
        images.read_image(tmp_path / "missing.jpg", 16)
    with pytest.raises(DataError, match="no such image file"):
        images.read_image(tmp_path, 16)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="no such image file"):
        images.read_image(tmp_path / "pipe.jpg", 16)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_damaged_images_give_pixels_or_a_data_error(form, tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(gradient(40, 30)).save(buffer, form)
    whole, rng = buffer.getvalue(), random.Random(0)
    path = tmp_path / "a.jpg"
    for _ in range(150):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole)
        for _ in range(rng.randrange(1, 4)):
            if damaged:
                damaged[rng.randrange(min(len(damaged), rng.choice((60, 1 << 20))))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            assert images.read_image(path, 8).shape == (3, 8, 8)
        except DataError as error:
            assert str(path) in str(error)  # noqa: PT017


@pytest.mark.parametrize(("width", "height"), [(9000, 8000), (12_000, 10_000), (60_000, 50_000)])
@pytest.mark.filterwarnings("ignore")  # as for a user, to whom Pillow's own bomb warning is no error
def test_decompression_bombs(tmp_path, width, height):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(width, height, 8, 0, b"\0"))
    with pytest.raises(DataError, match=r"bomb\.png"):
        images.read_image(path, 16)


def test_the_pixel_limit(tmp_path, monkeypatch):
    path = plain(tmp_path / "a.png", "red")
    monkeypatch.setattr(images, "MOST_PIXELS", 100)
    assert place(images.read_image(path, 8)) == [255, 0, 0]
    monkeypatch.setattr(images, "MOST_PIXELS", 99)
    with pytest.raises(DataError, match=r"a\.png: 10 x 10 pixels, more than 99; shrink it\.$"):
        images.read_image(path, 8)


def test_a_bomb_warning_is_an_error_whatever_the_filters(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png(12_000, 10_000, 8, 0, b"\0"))
    with pytest.raises(DataError, match=r"bomb\.png"):
        images.read_image(path, 16)


def test_a_long_thin_image_does_not_explode(tmp_path):
    path = save(tmp_path / "thin.png", Image.new("L", (500_000, 1), 200))
    assert place(images.read_image(path, 64)) == [200, 200, 200]


# ---- folders ---------------------------------------------------------------------------------------------------


def scan(root, size, cache_bytes=folder.CACHE_BYTES):
    """The images of one class folder, a, and what is left out."""
    found = list(layout.class_folders(root, root, ("a",)))
    entries = [item for item in found if isinstance(item, Entry)]
    return folder.FolderSplit(entries, size, cache_bytes=cache_bytes), [item for item in found if item not in entries]


def colours(split):
    return [tuple(place(image)) for image in split.read(np.arange(len(split)))]


def test_training_and_validation_folders(tmp_path):
    for part, count in (("train", 3), ("val", 2)):
        for number, name in enumerate(("cat", "ant")):
            for i in range(count):
                plain(tmp_path / part / name / f"{i}.png", (number, i, 255 * (part == "val")))
    (tmp_path / "train" / ".hidden").mkdir()
    data = folder.load(tmp_path, size=8)
    assert data.class_names == ("ant", "cat")
    assert data.name == tmp_path.name
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert colours(data.train) == [(1, i, 0) for i in range(3)] + [(0, i, 0) for i in range(3)]
    assert colours(data.validation) == [(1, i, 255) for i in range(2)] + [(0, i, 255) for i in range(2)]
    (tmp_path / "val").rename(tmp_path / "validation")
    assert len(folder.load(tmp_path, size=8).validation) == 4
    (tmp_path / "validation" / "ant" / "0.png").unlink()
    (tmp_path / "validation" / "ant" / "1.png").unlink()
    assert folder.load(tmp_path, size=8).validation.labels.tolist() == [1, 1]  # a class may be missing there
    plain(tmp_path / "validation" / "bee" / "0.png", "red")
    with pytest.raises(DataError, match="class 'bee' has no folder in"):
        folder.load(tmp_path)


def test_a_tenth_is_kept_for_validation(tmp_path):
    for i in range(50):
        plain(tmp_path / "ab"[i % 2] / f"{i}.png", (i, 0, 0))
    data = folder.load(tmp_path, size=8)
    again, other = folder.load(tmp_path, size=8), folder.load(tmp_path, size=8, seed=1)
    assert (len(data.train), len(data.validation)) == (46, 4)  # a tenth, as the names fall
    assert sorted(colours(data.train) + colours(data.validation)) == [(i, 0, 0) for i in range(50)]
    assert [c[0] % 2 for c in colours(data.train)] == data.train.labels.tolist()
    assert [c[0] % 2 for c in colours(data.validation)] == data.validation.labels.tolist()
    assert data.validation.names == again.validation.names != other.validation.names


def test_a_test_part_is_not_touched(tmp_path):
    for i in range(20):
        plain(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", (i, 0, 0))
        plain(tmp_path / "test" / "ab"[i % 2] / f"{i}.png", (i, 0, 255))
    data = folder.load(tmp_path, size=8)
    assert data.class_names == ("a", "b")
    assert {c[2] for c in colours(data.train) + colours(data.validation)} == {0}
    plain(tmp_path / "bus" / "0.png", "red")  # of the same classes inside, so train and test still are parts
    data = folder.load(tmp_path, size=8)
    assert data.class_names == ("a", "b")
    assert any("bus beside them: left out" in note for note in data.notes)


def test_what_is_no_image_is_left_out_and_listed(tmp_path):
    for i in range(3):
        plain(tmp_path / "a" / "deeper" / f"{i}.PNG", (i, 0, 0))
    for name in ("notes.txt", "Thumbs.db", ".hidden.png", "noending", "picture.HEIC"):
        (tmp_path / "a" / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "a" / "pipe.png")
    (tmp_path / "a" / "broken-link.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "a" / "link.png").symlink_to(tmp_path / "a" / "deeper" / "0.PNG")
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "round").symlink_to("round")
    split, left_out = scan(tmp_path, 8)
    assert split.names == ["a/link.png", "a/deeper/0.PNG", "a/deeper/1.PNG", "a/deeper/2.PNG"]
    assert {item.name.removeprefix("a/"): item.reason for item in left_out} == {
        "notes.txt": "no image by its name, .txt",
        "Thumbs.db": "no image by its name, .db",
        ".hidden.png": "a hidden file",
        "noending": "no image by its name, without an ending",
        "picture.HEIC": "a .heic file, which is not supported: convert it to JPEG or PNG",
        "pipe.png": "a pipe, a socket or a device",
        "broken-link.jpg": "a link that leads nowhere",
        "round": "no image by its name, without an ending",
        "loop": "a linked folder",
    }


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(DataError, match="cannot be read as a folder"):
        folder.load(tmp_path / "missing")
    with pytest.raises(DataError, match="holds no class folders"):
        folder.load(tmp_path)
    plain(tmp_path / "a" / "0.png", "red")
    with pytest.raises(DataError, match="contains only one class, 'a': there is nothing to tell apart"):
        folder.load(tmp_path)
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match=r"class 'b' holds no image \(\.jpg"):
        folder.load(tmp_path)
    with pytest.raises(ConfigurationError, match="size = 4"):
        folder.load(tmp_path, size=4)


def test_a_damaged_image_is_found_when_it_is_read(tmp_path):
    for i in range(4):
        plain(tmp_path / "a" / f"{i}.png", (i, 0, 0))
    (tmp_path / "a" / "2.png").write_bytes(b"no image")
    split, _ = scan(tmp_path, 8)
    assert len(split.read(np.array([0, 1, 3]))) == 3
    with pytest.raises(DataError, match=r"2\.png: not an image"):
        split.read(np.array([1, 2]))


def test_decoded_images_are_kept_within_bounds(tmp_path, monkeypatch):
    for i in range(6):
        plain(tmp_path / "a" / f"{i}.png", (40 * i, 0, 0))
    opened = []
    read_bytes = images.read_bytes
    monkeypatch.setattr(folder, "read_bytes", lambda path: opened.append(os.path.basename(path)) or read_bytes(path))
    split, _ = scan(tmp_path, 8, 4 * 3 * 8 * 8 + 5)
    order = np.array([5, 0, 3, -1, 2, 1, 4])
    first, second = split.read(order), split.read(order)
    assert np.array_equal(first, second)
    assert first[:, 0, 4, 4].tolist() == [200, 0, 120, 200, 80, 40, 160]
    assert opened[:7] == [f"{i}.png" for i in (5, 0, 3, 5, 2, 1, 4)]
    assert opened[7:] == ["5.png", "5.png", "4.png"]  # four of six are kept
    first[:] = 0
    assert np.array_equal(split.read(order), second)  # what was handed out is a copy
    with pytest.raises(IndexError):
        split.read(np.array([6]))


def test_threads_may_read_at_once(tmp_path):
    for i in range(12):
        plain(tmp_path / "a" / f"{i:02}.png", (20 * i, 0, 0), (40, 40))
    split, _ = scan(tmp_path, 16)
    wrong = []

    def read(seed):
        for index in np.random.default_rng(seed).integers(0, 12, (10, 4)):
            if split.read(index)[:, 0, 8, 8].tolist() != (20 * index).tolist():
                wrong.append(index)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_photographs(real_data):
    data = folder.load(real_data / "imagenet-sample", size=64)
    count = len(data.validation)
    assert (len(data.train) + count, len(data.class_names)) == (250, 250)
    assert 15 <= count <= 35  # a tenth, as the names fall
    assert f"no class has two images: {count} of 250 are in validation without a training image" in data.notes
    images = data.validation.read(np.arange(count))
    assert images.shape == (count, 3, 64, 64)
    assert images.std(axis=(1, 2, 3)).min() > 10


def test_the_recorded_try_of_the_page_on_imagenet_is_of_todays_split(real_data):
    """Which images are kept for validation is said in what `benchmarks/prepare.py try` has recorded."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "prepare.json"
    tried = json.loads(path.read_text(encoding="utf-8"))["try"]["found"]
    said = {entry["command"].split()[1]: entry["output"] for entry in tried}
    data = folder.load(real_data / "imagenet-sample", size=64)
    train, validation, classes = len(data.train), len(data.validation), len(data.class_names)
    assert any(
        f"{train} for training, {validation} for validation, {classes} classes" in line for line in said["prepare"]
    )
    counts = f"{train} training and {validation} validation images, {classes} classes"
    assert f"data     imagenet-sample: {counts}" in said["train"]
    assert "continue with:" in said["train"][-2]
