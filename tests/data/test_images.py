"""One decoder for all: the same bytes with and without simplejpeg, damage noticed, what was done is noted."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from minialex.data import images
from minialex.data.images import decode
from minialex.errors import DataError


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
