"""Charts for dark pages: ink turned over in its hue, photographs as they are; and the home page's recording."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from minialex.site import dark, live, recorded


def chart() -> np.ndarray:
    """White, with a frame of black lines, a thick blue line, and a photograph with a white cloud in it."""
    picture = np.full((200, 300, 4), 255, np.uint8)
    picture[20, 10:140, :3] = picture[20:180, 10, :3] = 0
    picture[100:103, 10:140, :3] = (0, 105, 166)
    photo = np.random.default_rng(0).integers(0, 200, (120, 120, 3), np.uint8)
    photo[40:70, 30:80] = 255
    picture[40:160, 160:280, :3] = photo
    return picture


def test_ink_is_light_and_the_ground_transparent() -> None:
    made = dark.darkened(chart())
    assert made[5, 5, 3] == 0
    assert made[20, 50].tolist() == [255, 255, 255, 255]  # black ink is white ink
    red, green, blue, opacity = made[101, 50].tolist()
    assert opacity == 255
    assert blue > green > red  # still blue
    assert min(blue, green, red) >= 60
    assert blue > 166


def test_a_photograph_stays_with_what_is_white_in_it() -> None:
    picture = chart()
    made = dark.darkened(picture)
    np.testing.assert_array_equal(made[44:156, 164:276], picture[44:156, 164:276])


def test_half_covered_pixels_keep_their_ink() -> None:
    """Of grey, the edge of a letter, half is ink."""
    picture = np.full((40, 40, 4), 255, np.uint8)
    picture[20, 20, :3] = 128
    assert dark.darkened(picture)[20, 20].tolist() == [255, 255, 255, 127]


def test_twins_stand_beside_their_pictures(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    Image.fromarray(chart()).convert("RGB").save(tmp_path / "deeper" / "x.png")
    twins = dark.write(tmp_path)
    assert twins == [tmp_path / "deeper" / "x.dark.png"]
    with Image.open(twins[0]) as image:
        assert (image.mode, image.size) == ("RGBA", (300, 200))
    assert dark.write(tmp_path) == twins  # of twins there are none


def test_the_recording_is_of_the_paper_s_network() -> None:
    found = json.loads(recorded.PATH.read_text(encoding="utf-8"))
    layers = {layer["layer"]: layer for layer in live.wanted()["layers"]}
    assert found["parameters"] == 60_965_224
    blocks = [name for name, layer in layers.items() if layer["kind"] in recorded.BEGIN]
    order = list(layers)
    ends = [next(n for n, b in enumerate([*blocks, ""]) if b == "" or order.index(b) > order.index(one["layer"]))
            for one in found["layers"]]  # fmt: skip
    assert ends == list(range(1, len(blocks) + 1))  # one picture a column for every block
    for one in found["layers"]:
        layer = layers[one["layer"]]
        assert one["shape"] == layer["output"]
        assert len(one["pieces"]) == layer["columns"]
        for piece in one["pieces"]:
            head, _, data = piece.partition(",")
            assert head == "data:image/jpeg;base64"
            with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                assert image.mode == "L"
                assert np.asarray(image).std() > 5  # it shows something
    assert recorded.PATH.stat().st_size < 80_000


def test_the_drawn_picture_is_that_of_the_page() -> None:
    picture = recorded.sample(256)
    assert picture.shape == (3, 256, 256)
    assert picture[:, 102, 102].tolist() == [220, 60, 40]  # the disc
    assert picture[:, 192, 192].tolist() == [250, 210, 60]  # the bar
    assert picture[:, 0, 0].tolist() == [40, 90, 170]
    assert picture[:, 0, 255].tolist() == [120, 90, 170]
