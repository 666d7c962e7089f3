"""A recorded run of the paper's network for the home page: its live part shows this until the button is pressed.

``python -m minialex.site.recorded`` computes it anew, in some ten seconds and with a gigabyte of memory, and writes
``docs/assets/live/recorded.json``: for each layer a picture of each column's numbers, as small JPEGs.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.site import ROOT, live
from minialex.storage.atomic import write_json

PATH = ROOT / "docs" / "assets" / "live" / "recorded.json"
ACROSS = 160  # pixels; what is wider is reduced
QUALITY = 45
BEGIN = ("Conv2d", "MaxPool2d", "Linear")  # layers of these kinds begin a block, as in network.js


def sample(size: int) -> NDArray[np.float32]:
    """The drawn picture of live.js, `sample` there: a disc, a bar and a ramp, [3,size,size]."""
    i, j = np.mgrid[:size, :size].astype(np.float64)
    disc = np.hypot(i - 0.4 * size, j - 0.4 * size) < 0.26 * size
    bar = np.abs(i + j - 1.5 * size) < 0.08 * size
    ramp = (40 + 80 * j / size, 90 + 60 * i / size, np.full_like(i, 170.0))
    picture = [
        np.where(disc, d, np.where(bar, b, r)) for d, b, r in zip((220, 60, 40), (250, 210, 60), ramp, strict=True)
    ]
    return np.floor(np.asarray(picture) + 0.5).astype(np.float32)


def record() -> dict[str, Any]:
    """Run the network; the pictures of its blocks of layers as addresses of data, by the name of the block's last."""
    told: list[Mapping[str, Any]] = []
    wanted = live.wanted()
    result = live.network(sample(wanted["size"]).ravel(), wanted["size"], told.append)
    first = [layer["kind"] in BEGIN for layer in wanted["layers"]]
    maps = [len(layer["shape"]) > 1 for layer in told]
    last = [n for n in range(len(told)) if n + 1 == len(told) or first[n + 1] or maps[n] > maps[n + 1]]
    return {
        "layers": [
            {"layer": told[n]["layer"], "shape": told[n]["shape"], "pieces": [_address(p) for p in told[n]["pieces"]]}
            for n in last
            if maps[n] or not maps[max(0, n - 1)] or first[n]  # what was only laid flat stays a map
        ],
        "parameters": result["parameters"],
    }


def _address(piece: Mapping[str, Any]) -> str:
    from PIL import Image

    image = Image.fromarray(np.asarray(piece["data"], np.uint8).reshape(piece["height"], piece["width"]))
    image.thumbnail((ACROSS, 4 * ACROSS), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


if __name__ == "__main__":
    write_json(PATH, record())
