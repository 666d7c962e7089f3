"""Fashion-MNIST (or MNIST itself) in its four IDX files, compressed or not.

An IDX file is a big-endian header (two zero bytes, the element type, the number of axes, the length of each) followed
by the elements. Images of 28 x 28 grey pixels get a border of two black pixels, and the same value in all three
channels. Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST", arXiv 1708.07747; format: LeCun, MNIST page.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import ArraySplit, DataSet
from minialex.data.sets import files
from minialex.errors import DataError

CLASS_NAMES = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
DEBIAN = "/usr/share/datasets/fashion-mnist"  # package dataset-fashion-mnist
MOST_IMAGES = 1_000_000
PADDING = 2  # 28 -> 32
_UNSIGNED_BYTE = 8


def load(place: str | None = None) -> DataSet:
    """Read Fashion-MNIST into memory (215 MB for 70,000 images of 3 x 32 x 32).

    Args:
        place: the folder with the four files; None looks in the usual folders and in Debian's

    Raises:
        DataError: nothing found, or a file that is damaged, truncated or of another type
    """
    looked = files.candidates(place, "fashion-mnist", DEBIAN)
    for folder in looked:
        if _find(folder, "train-images-idx3-ubyte"):
            return DataSet("fashion-mnist", _part(folder, "train"), _part(folder, "t10k"), CLASS_NAMES)
    raise files.not_found("fashion-mnist", looked, "train-images-idx3-ubyte(.gz)")


def _find(folder: Path, name: str) -> Path | None:
    """The file, under either of its names."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _part(folder: Path, part: str) -> ArraySplit:
    """Images and labels of ``"train"`` or ``"t10k"``."""
    paths = [_find(folder, f"{part}-{kind}") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
    if paths[0] is None or paths[1] is None:
        raise DataError(f"{folder}: {part}-images-idx3-ubyte or {part}-labels-idx1-ubyte missing; get both with "
                        "'minialex download fashion-mnist'.")  # fmt: skip
    grey, labels = read_idx(paths[0], axes=3), read_idx(paths[1], axes=1)
    if grey.shape[1:] != (28, 28):
        raise DataError(f"{paths[0]}: images of {grey.shape[1]} x {grey.shape[2]}, not 28 x 28.")
    if len(grey) != len(labels):
        raise DataError(f"{paths[1]}: {len(labels)} labels for {len(grey)} images; the files do not belong together.")
    if len(labels) and labels.max() >= len(CLASS_NAMES):
        raise DataError(f"{paths[1]}: a label is {labels.max()}, not a number from 0 to 9; download it again.")
    images = np.zeros((len(grey), 3, 32, 32), np.uint8)
    images[:, :, PADDING:-PADDING, PADDING:-PADDING] = grey[:, None]
    return ArraySplit(images, labels.astype(np.int64))


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """The bytes in an IDX file, as an array with `axes` axes.

    Raises:
        DataError: another type of file or number of axes, too many elements, a truncated file, or trailing bytes
    """
    with files.opened(path) as content:
        header = content.read(4 + 4 * axes)
        if header[:4] != bytes((0, 0, _UNSIGNED_BYTE, axes)):
            raise DataError(f"{path}: begins with {header[:4].hex(' ') or 'nothing'}, not with "
                            f"00 00 08 0{axes} as an IDX file of bytes with {axes} axes does.")  # fmt: skip
        if len(header) != 4 + 4 * axes:
            raise DataError(f"{path}: cut short in its header; download it again.")
        shape = tuple(int(n) for n in np.frombuffer(header, ">u4", offset=4))
        if shape[0] > MOST_IMAGES or not 0 < math.prod(shape) <= MOST_IMAGES * 28 * 28:
            raise DataError(f"{path}: claims the shape {list(shape)}, which Fashion-MNIST cannot have.")
        data = content.read(math.prod(shape))
        if len(data) != math.prod(shape):
            raise DataError(f"{path}: cut short, {len(data):,} of {math.prod(shape):,} bytes; download it again.")
        if content.read(1):  # at the end a compressed file's checksum is verified
            raise DataError(f"{path}: more bytes than its header says; download it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)
