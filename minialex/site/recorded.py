"""What the site shows from a computation in advance, since it takes long or needs photographs that the site lacks.

``python -m minialex.site.recorded`` recomputes it, in some ten seconds and with a gigabyte of memory:

- ``docs/assets/live/recorded.json``, a run of the paper's network, which the home page's live part shows until the
  button is pressed: for each layer a picture of each column's numbers, as small JPEGs;
- ``docs/assets/live/map.webp``, if CIFAR-10 is available: a map of photographs, by the trained network that the site
  includes.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import DataNotFound
from minialex.site import ROOT, carried, live
from minialex.storage.atomic import write_bytes, write_json

PATH = ROOT / "docs" / "assets" / "live" / "recorded.json"
MAP = PATH.with_name("map.webp")
MAPPED = 500  # photographs
ACROSS = 160  # pixels; anything wider is reduced
QUALITY = 45
BEGIN = ("Conv2d", "MaxPool2d", "Linear")  # layers of these types begin a block, as in network.js


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
    """Run the network; return pictures of its blocks of layers as data URLs, by the name of each block's last layer."""
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
            if maps[n] or not maps[max(0, n - 1)] or first[n]  # flattened output stays a map
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


def draw_map() -> bytes:
    """The map of photographs as WebP, on a transparent background, so that it fits light and dark pages.

    Raises:
        DataNotFound: Without CIFAR-10.
    """
    from PIL import Image

    from minialex import data
    from minialex.figures import look
    from minialex.look.flat import flat_map
    from minialex.look.neighbours import feature_layer

    session = carried.session()
    photographs = data.load("cifar10", validation_images=MAPPED)
    images = photographs.validation.read(np.arange(MAPPED))
    layer = feature_layer(session.network)
    features = np.concatenate([session.activations(part, [layer])[layer] for part in np.split(images, 10)])
    figure = look.flat_map(
        list(images), flat_map(features), photographs.validation.labels, photographs.class_names, layer
    )
    figure.axes[0].set_title("", loc="left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, transparent=True)
    with Image.open(buffer) as image:
        written = io.BytesIO()
        image.save(written, "WEBP", quality=60, method=6)
    return written.getvalue()


if __name__ == "__main__":
    write_json(PATH, record())
    try:
        write_bytes(MAP, draw_map())
    except DataNotFound as error:
        print(f"no map: {error}")
