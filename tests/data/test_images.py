"""One decoder for all: the same bytes with and without simplejpeg, damage noticed, what was done is noted."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from minialex.data import images
from minialex.data.images import decode
from minialex.errors import ConfigurationError, DataError


def photo(width, height, seed=0):
    """Something with detail and colour, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 60 * np.sin(x / (3 + c) + c) + 50 * np.cos(y / (5 - c)) for c in range(3)]
    return np.clip(np.stack(waves, -1) + rng.normal(0, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def encoded(picture, form="JPEG", **options):
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.fixture
def without_simplejpeg(monkeypatch):
    """A function that decodes as if simplejpeg were not installed."""

    def plain(data, size):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "simplejpeg", None)
            return decode(data, size)

    return plain


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(64, 64, 64), (97, 63, 32), (500, 375, 256), (40, 60, 64), (700, 521, 128), (531, 809, 32), (1099, 130, 32)],
)
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_both_decoders_give_the_same_bytes(without_simplejpeg, width, height, size, options):
    data = encoded(photo(width, height), **options)
    assert np.array_equal(decode(data, size).pixels, without_simplejpeg(data, size).pixels)
    grey = encoded(Image.fromarray(photo(width, height)).convert("L"), **options)
    assert np.array_equal(decode(grey, size).pixels, without_simplejpeg(grey, size).pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_both_decoders_turn_alike(without_simplejpeg, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo(90, 50), exif=exif)
    found = decode(data, 32)
    assert np.array_equal(found.pixels, without_simplejpeg(data, 32).pixels)
    assert ("EXIF rotation" in found.notes) == (orientation > 1)


def test_both_decoders_on_photographs(real_data, without_simplejpeg):
    for path in sorted((real_data / "imagenet-sample").rglob("*.JPEG"))[::10]:
        data = path.read_bytes()
        assert np.array_equal(decode(data, 256).pixels, without_simplejpeg(data, 256).pixels), path


def test_a_large_photograph_is_decoded_at_a_fraction_and_nearly_the_same(monkeypatch):
    data = encoded(photo(1600, 1200), quality=95)
    scaled = decode(data, 128).pixels.astype(int)
    whole = images._square(Image.open(io.BytesIO(data)), 128, "one-step").astype(int)
    assert 0 < np.abs(scaled - whole).mean() < 2  # another way, the same picture
    shapes = []
    square = images._square
    monkeypatch.setattr(images, "_square", lambda image, *how: shapes.append(image.size) or square(image, *how))
    decode(data, 128)
    decode(encoded(photo(500, 375)), 128)
    assert shapes == [(400, 300), (500, 375)]


def test_flipped_bytes_are_noticed_where_the_code_breaks():
    data = bytearray(encoded(photo(200, 150), quality=90))
    found = {"an error": 0, "a note": 0, "nothing": 0}
    for place in range(len(data) // 2, len(data) - 10, 97):
        flipped = bytearray(data)
        flipped[place] ^= 0xFF
        try:
            found["a note" if decode(bytes(flipped), 64).notes else "nothing"] += 1
        except DataError:
            found["an error"] += 1
    # Most flips change pixels and leave sound code: only a checksum shows them. Pillow alone notices none of these.
    assert found["an error"] + found["a note"] > found["nothing"] / 4, found


def test_cut_short_at_any_place():
    data = encoded(photo(200, 150))
    for length in (3, 100, len(data) // 2, len(data) - 20):
        with pytest.raises(DataError):
            decode(data[:length], 64)


def test_a_harmless_warning_is_noted_and_changes_nothing():
    data = encoded(photo(64, 48))
    odd = data[:-2] + b"abc" * 100 + data[-2:]  # bytes between the data and the end
    found = decode(odd, 32)
    assert np.array_equal(found.pixels, decode(data, 32).pixels)
    assert len(found.notes) == 1
    assert "extraneous bytes" in found.notes[0]


NOTES = {
    "usual": (encoded(photo(20, 20)), "a.JPEG", ()),
    "grey": (encoded(Image.fromarray(photo(20, 20)).convert("L")), "a.jpg", ("grey",)),
    "cmyk": (encoded(Image.fromarray(photo(20, 20)).convert("CMYK")), "a.jpg", ("CMYK",)),
    "png named jpeg": (encoded(photo(20, 20), "PNG"), "b/n02105855_2933.JPEG", ("PNG named JPEG",)),
    "palette": (encoded(Image.fromarray(photo(20, 20)).convert("P"), "PNG"), "a.png", ("palette",)),
    "16 bit": (encoded(Image.new("I;16", (9, 9), 5000), "PNG"), "a.png", ("16-bit grey",)),
    "transparent": (encoded(Image.new("RGBA", (9, 9), (9, 9, 9, 9)), "PNG"), "a.png", ("transparency",)),
    "animation": (
        encoded(Image.new("RGB", (9, 9)), "WEBP", save_all=True, append_images=[Image.new("RGB", (9, 9), "red")]),
        "a.webp",
        ("first frame of several",),
    ),
}


@pytest.mark.parametrize("name", NOTES)
def test_what_is_not_as_usual_is_noted(name):
    data, path, expected = NOTES[name]
    assert decode(data, 16, path).notes == expected


def test_a_file_of_absurd_size_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MOST_BYTES", 1 << 20)
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate((1 << 20) + 1)
    with pytest.raises(DataError, match=r"a\.jpg: a file of more than 1 MiB"):
        images.read_image(path, 32)


# ---- two orders of making a square ------------------------------------------------------------------------------


def by_torchvision(image, size):
    """What torchvision's Resize(size) and CenterCrop(size) do with a Pillow image, by their documentation."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = int(size * long / short)
    image = image.resize((size, longer) if width <= height else (longer, size), Image.Resampling.BILINEAR)
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("width", "height"), [(64, 64), (97, 63), (500, 375), (40, 61), (700, 521), (333, 500), (129, 32)]
)
@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("JPEG", {"quality": 90})])
def test_resizing_then_cropping_gives_torchvisions_bytes(width, height, form, options):
    data = encoded(photo(width, height), form, **options)
    for size in (32, 64):
        found = decode(data, size, resize="resize-then-crop").pixels
        assert np.array_equal(found, by_torchvision(Image.open(io.BytesIO(data)).convert("RGB"), size))


def test_torchvision_itself_agrees():
    transforms = pytest.importorskip("torchvision.transforms")
    for width, height in ((97, 63), (500, 375), (333, 500)):
        image = Image.fromarray(photo(width, height))
        expected = transforms.CenterCrop(64)(transforms.Resize(64)(image))
        found = images.from_pillow(image, 64, "resize-then-crop")
        assert np.array_equal(found, np.asarray(expected).transpose(2, 0, 1))


def test_the_two_orders_differ_on_photographs_as_the_documentation_says(real_data):
    means, most, same = [], 0, 0
    for path in sorted((real_data / "imagenet-sample").rglob("*.JPEG"))[::10]:
        expected = by_torchvision(Image.open(path).convert("RGB"), 256)
        second = images.read_image(path, 256, "resize-then-crop")
        assert np.array_equal(second, expected)
        difference = np.abs(images.read_image(path, 256).astype(int) - second)
        means.append(difference.mean())
        most, same = max(most, difference.max()), same + (difference.max() == 0)
    assert 1 < np.mean(means) < 5
    assert 60 < most < 200
    assert same < 6


def test_a_thin_image_does_not_explode_when_its_shorter_side_is_scaled():
    with pytest.raises(DataError, match=r"would have 32000000 x 64 pixels with a shorter side of 64; crop it"):
        decode(encoded(Image.new("L", (500_000, 1)), "PNG"), 64, resize="resize-then-crop")


# ---- what has no pixels, or no range ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(0, 0, 3), (0, 5), (5, 0, 3), (3, 0, 0), (3, 0, 7)])
def test_arrays_without_pixels_are_refused(shape):
    with pytest.raises(ConfigurationError, match="has no pixels"):
        images.from_array(np.zeros(shape, np.uint8), 8)


def test_pillow_images_without_pixels_are_refused():
    for size in ((0, 0), (0, 5), (5, 0)):
        with pytest.raises(DataError, match="has nothing to show"):
            images.from_pillow(Image.new("RGB", size), 8)


def test_tiff_files_of_other_kinds():
    def tiff(array, **options):
        return encoded(Image.fromarray(array), "TIFF", **options)

    assert decode(tiff(np.full((8, 8), 0x8000, np.uint16)), 8).pixels[:, 4, 4].tolist() == [128] * 3
    assert decode(tiff(np.full((8, 8), 0x8000, np.int32)), 8).pixels[:, 4, 4].tolist() == [128] * 3
    with pytest.raises(DataError, match="floating-point pixels, which have no agreed range"):
        decode(tiff(np.full((8, 8), 0.5, np.float32)), 8)
    with pytest.raises(DataError, match="32-bit pixels, which have no agreed range"):
        decode(tiff(np.full((8, 8), 70_000, np.int32)), 8)
    cyan = encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "TIFF")
    assert decode(cyan, 8, "a.tif").pixels[:, 4, 4].tolist() == [0, 255, 255]
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    both = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert decode(both, 8, "a.tiff").pixels[:, 4, 4].tolist() == [255, 0, 0]
    assert decode(both, 8, "a.tiff").notes == ("first frame of several",)


# ---- what Pillow says itself ------------------------------------------------------------------------------------

LOUD = """
import io, sys
from pathlib import Path
from minialex.data import images
from minialex.screen.quiet import quiet_decoders
if sys.argv[1] == "quiet":
    quiet_decoders()
for path in sorted(Path(sys.argv[2]).iterdir()):
    try:
        images.read_image(path, 8)
        print(path.name, "read")
    except images.DataError as error:
        print(path.name, str(error).partition(": ")[2])
"""


def test_decoders_say_nothing_beside_our_own_line(tmp_path):
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x01\0\0\0\x69\x87\x04\0\xff\0\0\0\xff\xff\xff\x7f"
    (tmp_path / "exif.jpg").write_bytes(encoded(photo(30, 20), exif=exif))
    (tmp_path / "large.png").write_bytes(encoded(Image.new("1", (10_000, 9_000)), "PNG"))
    (tmp_path / "huge.png").write_bytes(encoded(Image.new("1", (15_000, 14_000)), "PNG"))
    (tmp_path / "cut.tif").write_bytes(encoded(photo(40, 30), "TIFF", compression="tiff_lzw")[:-300])

    def said(how):
        command = [sys.executable, "-c", LOUD, how, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return done.stderr, dict(line.split(" ", 1) for line in done.stdout.splitlines())

    assert "Warning" in said("loud")[0]  # or this would prove nothing
    errors, found = said("quiet")
    assert errors == ""
    assert found["exif.jpg"] == "read"
    assert found["large.png"] == "10000 x 9000 pixels, more than 64,000,000; shrink it."
    assert found["huge.png"] == "a decompression bomb, or an image of more than 64,000,000 pixels; shrink it."
    assert found["cut.tif"].startswith(("cannot be decoded", "not an image"))
