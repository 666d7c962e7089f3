"""Any folder of images, one sub-folder a class (ImageFolder layout), decoded when they are read.

Layouts: ``train/CLASS/…`` with ``val/CLASS/…`` (or ``validation``), or ``CLASS/…`` alone, of which Philox then
chooses a tenth for validation. Classes are numbered in the order of their names. Deeper folders are searched too.

`minialex.data.images` says what becomes of an image. One that cannot be used is a `DataError` that names the file,
when it is read: looking through the folder opens nothing. Files with other endings, hidden ones and things that are
no files are left out and listed in `FolderSplit.skipped`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.data.dataset import DataSet
from minialex.data.images import ENDINGS, read_image
from minialex.errors import ConfigurationError, DataError

CACHE_BYTES = 512 << 20  # decoded images kept in memory, a part of a data set
VALIDATION_PART = 10  # one of ten images, where a folder has no validation part of its own


def load(place: str | os.PathLike[str], *, size: int | None = None, seed: int = 0) -> DataSet:
    """A folder of images as a data set; nothing is decoded yet.

    Args:
        place: the folder
        size: height and width of the images; 256 if None, as in the paper
        seed: chooses the validation images where the folder has no validation part

    Raises:
        ConfigurationError: a size below 8 or above 4096 pixels
        DataError: no such folder, no images, a class without images, or a validation class that is not trained
    """
    root = Path(place).expanduser()
    size = 256 if size is None else size
    if not 8 <= size <= 4096:
        raise ConfigurationError(f"{root}: size = {size} cannot be used; use 8 to 4096 pixels.")
    train, validation, names = layout(root)
    if validation is not None:
        return DataSet(root.name, scan(train, names, size), scan(validation, names, size, complete=False), names)
    whole = scan(train, names, size)
    chosen = validation_part(len(whole), seed, str(root))
    return DataSet(root.name, whole.part(np.flatnonzero(~chosen)), whole.part(np.flatnonzero(chosen)), names)


def layout(root: Path) -> tuple[Path, Path | None, tuple[str, ...]]:
    """Where the class folders of training and of validation lie, if that has some of its own, and the class names.

    Raises:
        DataError: no such folder, or a validation class that is not trained
    """
    folders = _folders(root)
    validation = next((name for name in ("val", "validation") if name in folders), None)
    if "train" in folders and validation:
        names = tuple(_folders(root / "train"))
        unknown = set(_folders(root / validation)) - set(names)
        if unknown:
            raise DataError(f"{root / validation}: class '{min(unknown)}' has no folder in {root / 'train'}.")
        return root / "train", root / validation, names
    if "train" in folders and set(folders) <= {"train", "test"}:  # a test part is not ours to look at
        root, folders = root / "train", _folders(root / "train")
    return root, None, tuple(folders)


def validation_part(count: int, seed: int, where: str) -> NDArray[np.bool_]:
    """Which of some images are kept for validation, where nobody has said: a tenth, chosen by Philox; bool [count].

    Raises:
        DataError: fewer than two images
    """
    if count < 2:
        raise DataError(f"{where}: only {count} image; training and validation need one each at least.")
    order = philox.permutation(philox.Stream(seed, philox.purpose("data/folder/validation")), count)
    chosen = np.zeros(count, np.bool_)
    chosen[order[: max(1, count // VALIDATION_PART)]] = True
    return chosen


def _folders(root: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out."""
    try:
        with os.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: cannot be read as a folder of images ({error.strerror}).") from None


def scan(root: Path, class_names: tuple[str, ...], size: int, *, complete: bool = True) -> FolderSplit:
    """List the images of some classes without opening any.

    Raises:
        DataError: no class at all, or, if `complete`, a class without an image
    """
    if not class_names:
        raise DataError(f"{root}: holds no class folders; expected {root}/CLASS/IMAGE.jpg.")
    paths: list[Path] = []
    labels: list[int] = []
    skipped: list[Path] = []
    for label, name in enumerate(class_names):
        for path, usable in images(root / name):
            (paths if usable else skipped).append(path)
        if complete and len(paths) == len(labels):
            raise DataError(f"{root / name}: holds no image ({', '.join(ENDINGS)}); remove the folder or fill it.")
        labels += [label] * (len(paths) - len(labels))
    if not paths:
        raise DataError(f"{root}: holds no image ({', '.join(ENDINGS)}).")
    return FolderSplit(paths, np.array(labels, np.int64), size, skipped)


def images(folder: Path) -> Iterator[tuple[Path, bool]]:
    """All files below a folder in a fixed order, and whether each looks like an image.

    Linked folders below it are not followed, so there are no loops.

    Raises:
        DataError: a folder that cannot be read
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}).") from None

    for parent, folders, names in os.walk(folder, onerror=fail):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            yield path, path.suffix.lower() in ENDINGS and not name.startswith(".") and path.is_file()


class FolderSplit:
    """Images on disk, decoded when they are read; the first ones that fit into `cache_bytes` are kept.

    `skipped` are files in the class folders that are not taken for images.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        labels: NDArray[np.int64],
        size: int,
        skipped: Sequence[Path] = (),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.paths, self.labels, self.size, self.skipped = paths, labels, size, skipped
        slots = min(len(paths), cache_bytes // (3 * size**2))
        self._cache = np.empty((slots, 3, size, size), np.uint8)  # memory is taken page by page, as images are written
        self._cached = np.zeros(slots, np.bool_)

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, chosen: NDArray[np.int64]) -> FolderSplit:
        """The images at some ascending indices, as a part of its own."""
        return FolderSplit([self.paths[i] for i in chosen], self.labels[chosen], self.size, self.skipped)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices, uint8 [n, 3, size, size]; `DataError` names a file that cannot be decoded."""
        indices = np.arange(len(self))[indices]  # negative ones too, and an IndexError for those beyond the end
        out = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        for row, index in enumerate(indices.tolist()):
            if index < len(self._cached) and self._cached[index]:
                out[row] = self._cache[index]
                continue
            out[row] = read_image(self.paths[index], self.size)
            if index < len(self._cached):  # two threads may do this at once: they write the same bytes
                self._cache[index] = out[row]
                self._cached[index] = True
        return out
