"""Chart pictures for dark pages: transparent background, light ink in its own hue, photographs unchanged.

Charts of notebooks and studies are PNG on white. In a dark page each is replaced with its twin ``NAME.dark.png``, made
here: anything not white becomes opaque in proportion, with inverted lightness. Dense regions, photographs or maps of
kernels, are detected as rectangles and stay unchanged.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from minialex.storage.atomic import write_bytes

CELL = 4  # pixels
LEAST = 6  # the fewest cells on a side of a dense square
WHITE = 250


def write(folder: Path) -> list[Path]:
    """Write the twins of all PNG files in a folder and below; return their paths."""
    twins = []
    for path in sorted(folder.rglob("*.png")):
        if not path.name.endswith(".dark.png"):
            twins.append(path.with_name(path.stem + ".dark.png"))
            buffer = io.BytesIO()
            with Image.open(path) as image:
                Image.fromarray(darkened(np.asarray(image.convert("RGBA")))).save(buffer, "PNG")
            write_bytes(twins[-1], buffer.getvalue())
    return twins


def darkened(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture, uint8 [H,W,4], for a dark background."""
    opacity = picture[..., 3:] / np.float32(255)
    colour = (picture[..., :3] / np.float32(255)) * opacity + (1 - opacity)  # on white
    kept = dense((picture[..., :3].min(axis=2) < WHITE) & (picture[..., 3] > 0))
    ink = 1 - colour.min(axis=2, keepdims=True)
    pure = (colour - (1 - ink)) / np.maximum(ink, 1 / 255)
    turned = np.clip(pure + 1 - pure.max(axis=2, keepdims=True) - pure.min(axis=2, keepdims=True), 0, 1)
    light = 0.25 + 0.75 * turned  # nothing is darker than a dark page
    made = np.concatenate([np.where(kept[..., None], colour, light), np.where(kept[..., None], 1, ink)], axis=2)
    return np.asarray(made * 255 + 0.5, np.uint8)


def dense(marked: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Rectangles around regions that are marked nearly without gaps, as a mask of the same shape."""
    H, W = marked.shape
    padded = np.pad(marked, ((0, -H % CELL), (0, -W % CELL)))
    cells = padded.reshape(padded.shape[0] // CELL, CELL, -1, CELL).mean(axis=(1, 3)) > 0.9
    kept = np.zeros(cells.shape, np.bool_)
    if min(cells.shape) >= LEAST:
        squares = np.lib.stride_tricks.sliding_window_view(cells, (LEAST, LEAST)).mean(axis=(2, 3)) > 0.9
        for i, j in np.argwhere(squares):
            kept[i : i + LEAST, j : j + LEAST] = True
    for rows, columns in _boxes(kept):
        kept[rows, columns] = True
    return kept.repeat(CELL, axis=0).repeat(CELL, axis=1)[:H, :W]


def _boxes(mask: NDArray[np.bool_]) -> list[tuple[slice, slice]]:
    """The bounding rectangles of connected regions."""
    rest, boxes = {(int(i), int(j)) for i, j in np.argwhere(mask)}, []
    while rest:
        edge = [rest.pop()]
        seen = list(edge)
        while edge:
            i, j = edge.pop()
            near = {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} & rest
            rest -= near
            edge += near
            seen += near
        rows, columns = zip(*seen, strict=True)
        boxes.append((slice(min(rows), max(rows) + 1), slice(min(columns), max(columns) + 1)))
    return boxes
