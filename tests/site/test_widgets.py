"""What live parts show before anybody presses Run is what the library computes from the picture that they show."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from minialex.site import live, recorded, widgets


def test_the_first_pictures_are_computed(tmp_path: Path) -> None:
    assert tmp_path / "first.json" in widgets.write(tmp_path)
    found = json.loads((tmp_path / "first.json").read_text(encoding="utf-8"))
    assert set(found) == {"convolution", "relu", "pooling"}
    picture = {"image": widgets.drawn(48).ravel(), "height": 48, "width": 48}
    for name, part in found.items():
        wanted = live.call(name, {**picture, **part["args"]})
        assert part["result"]["shape"] == wanted["shape"]
        np.testing.assert_allclose(part["result"]["data"], wanted["data"], atol=1e-4)
        assert np.ptp(part["result"]["data"]) > 50, "something is to be seen"


def test_the_grey_picture_is_the_coloured_one() -> None:
    coloured = recorded.sample(48)
    assert np.abs(widgets.drawn(48) - coloured.mean(axis=0)).max() <= 1
