"""What becomes of pixels, counted out by hand: turning, odd borders, rounding, limits, the order of channels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from minialex.data import images
from minialex.data.images import decode
from minialex.errors import DataError

UPRIGHT = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
TURNED = {  # how a camera stores it: what the first row and the first column show, as the EXIF standard says
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],  # row: top, column: right
    3: UPRIGHT[::-1, ::-1],  # bottom, right
    4: UPRIGHT[::-1],  # bottom, left
    5: UPRIGHT.T,  # left, top
    6: np.rot90(UPRIGHT),  # right, top
    7: np.rot90(UPRIGHT[::-1]),  # right, bottom
    8: np.rot90(UPRIGHT, -1),  # left, bottom
}


def png(picture: np.ndarray | Image.Image, **options: object) -> bytes:
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.ascontiguousarray(picture))
    out = io.BytesIO()
    image.save(out, "PNG", **options)
    return out.getvalue()


@pytest.mark.parametrize("orientation", TURNED)
def test_images_are_turned_upright(orientation: int) -> None:
    stored = TURNED[orientation]
    edges = {1: (0, 0), 2: (0, 3), 3: (3, 3), 4: (3, 0), 5: (0, 0), 6: (0, 3), 7: (3, 3), 8: (3, 0)}
    assert stored[0, 0] == UPRIGHT[edges[orientation]]  # the corner that the standard's words name
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = decode(png(stored, exif=exif), 8).pixels[0]
    np.testing.assert_array_equal(found, decode(png(UPRIGHT), 8).pixels[0])


def test_a_square_lies_in_the_middle_to_half_a_pixel() -> None:
    wide = np.tile(np.array([0, 100, 200, 100, 0, 0, 0, 0], np.uint8), (7, 1))
    assert decode(png(wide), 7).pixels[0, 3].tolist() == [50, 150, 150, 50, 0, 0, 0]
    assert decode(png(wide.T), 7).pixels[0, :, 3].tolist() == [50, 150, 150, 50, 0, 0, 0]


def test_images_are_scaled_by_straight_lines() -> None:
    step = np.repeat(np.array([[0, 0, 0, 0, 200, 200, 200, 200]], np.uint8), 8, axis=0)
    # twice as wide: between the two places next to the border a quarter and three quarters; nothing overshoots
    assert decode(png(step), 16).pixels[0, 4, 6:10].tolist() == [0, 50, 150, 200]


def test_sixteen_bits_are_divided_by_257_and_rounded() -> None:
    grey = np.full((8, 8), 257 * 100 + 128, np.uint16)
    grey[0], grey[1], grey[2] = 65535, 257 * 100 + 129, 0
    found = decode(png(Image.fromarray(grey)), 8).pixels[0]
    assert found[[0, 1, 2, 3], 0].tolist() == [255, 101, 0, 100]


def test_red_comes_first() -> None:
    colour = np.zeros((8, 8, 3), np.uint8)
    colour[..., 0], colour[..., 2] = 250, 30
    assert decode(png(colour), 8).pixels[:, 0, 0].tolist() == [250, 0, 30]
    red, green, blue = decode(_jpeg(colour), 8).pixels[:, 0, 0].astype(int)
    assert red > 240
    assert green < 12
    assert 20 < blue < 40


def _jpeg(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=95)
    return out.getvalue()


def test_transparency_lies_over_white() -> None:
    clear = np.zeros((8, 8, 4), np.uint8)
    clear[:4, :, 3] = 255
    assert decode(png(clear), 8).pixels[:, [0, 7], 0].T.tolist() == [[0, 0, 0], [255, 255, 255]]


def test_as_many_pixels_as_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_PIXELS", 72)
    decode(png(np.zeros((8, 9), np.uint8)), 8)
    with pytest.raises(DataError, match="8 x 10 pixels, more than 72"):
        decode(png(np.zeros((10, 8), np.uint8)), 8)
