"""Data sets: where they come from, what training sees of them, and how they are read.

``load("shapes")`` needs nothing; ``load("cifar10")`` and ``load("fashion-mnist")`` look for downloaded files;
``load("./photos")`` reads a folder of images, a list of them, or a store that `minialex prepare` made. NumPy and the
standard library suffice, except for folders (Pillow), stores (safetensors) and downloads (pooch): these packages are
imported on demand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from minialex.data.dataset import ArraySplit, DataSet, Joined, LeftOut, Split, some
from minialex.data.draws import epoch_order, ten_crop_offsets, training_draws
from minialex.data.loader import batches
from minialex.data.sets import cifar10, fashion_mnist, folder, lists
from minialex.data.sets import figures as shapes
from minialex.data.sets.folder import MEASURED, checked
from minialex.data.statistics import Statistics
from minialex.data.store import store
from minialex.errors import ConfigurationError, DataError, nearest

__all__ = [
    "NAMES", "ArraySplit", "DataSet", "LeftOut", "Split", "Statistics", "absolute", "batches", "checked",
    "epoch_order", "load", "ten_crop_offsets", "training_draws",
]  # fmt: skip

NAMES = ("shapes", "cifar10", "fashion-mnist")


def load(
    source: str,
    *,
    size: int | None = None,
    seed: int = 0,
    train_images: int | None = None,
    validation_images: int | None = None,
    resize: str = "one-step",
    part: str = "",
) -> DataSet:
    """Load a data set by name or from a folder.

    Args:
        source: ``shapes``; ``cifar10`` or ``fashion-mnist``, also with a path, ``cifar10:FILE-OR-FOLDER``; or the path
            of a folder of images (see `minialex.data.sets.layout`), of a list of them (`minialex.data.sets.lists`) or
            of a store (`minialex.data.store.store`). A name takes precedence over a folder with that name.
        size: height and width of the images; if None, 32 (folders: 256, stores: their own). CIFAR-10 and Fashion-MNIST
            have 32.
        seed: seed for drawing `shapes`, and for choosing images if only some are used
        train_images, validation_images: the most images to use; of real images, Philox chooses which
        resize: how images of a folder are made square: "one-step", or "resize-then-crop" as in torchvision (see
            `minialex.data.images`); a store was made in one of these ways
        part: for evaluation: what ``validation`` will contain, "train", "validation", "test" (for folders), "all", or
            "own": the validation part if there is one, otherwise all images

    Raises:
        ConfigurationError: an unknown name, or an invalid size or number
        DataError: missing or damaged files; the message says where they were looked for and how to get them
    """
    name, colon, place = source.partition(":")
    for field, count in (("train_images", train_images), ("validation_images", validation_images)):
        if count is not None and count < 1:
            raise ConfigurationError(f"{field} = {count}; use 1 or more.")
    if part not in ("", "own", *MEASURED):
        raise ConfigurationError(f"part = '{part}'; use {', '.join(MEASURED)}.{nearest(part, MEASURED)}")
    whole: DataSet
    if name == "shapes":
        if colon:
            raise ConfigurationError(f"data = '{source}': shapes are drawn, not read; leave out ':{place}'.")
        drawn = shapes.load(size=size, seed=seed, train_images=train_images, validation_images=validation_images)
        return _measured(drawn, part)
    if name in NAMES:
        if colon and not place:
            raise ConfigurationError(f"data = '{source}': say where it is after the colon, or leave the colon out.")
        if size not in (None, 32):
            raise ConfigurationError(f"size = {size}: images of {name} have 32 x 32 pixels; leave size out.")
        whole = (cifar10 if name == "cifar10" else fashion_mnist).load(place or None)
    else:
        whole = _folder(source, size, seed, resize, part)
    if part in MEASURED and len(whole.train):  # from a folder only the part to be measured is loaded
        whole = _measured(whole, part)
    train = some(whole.train, train_images, seed=seed, purpose="data/some/train")
    if part == "train":  # the images that training uses, however few are otherwise validated
        validation = some(whole.validation, train_images, seed=seed, purpose="data/some/train")
    else:
        validation = some(whole.validation, validation_images, seed=seed, purpose="data/some/validation")
    statistics = whole.statistics if train is whole.train else None  # the whole's statistics are not a part's
    return replace(whole, train=train, validation=validation, statistics=statistics)


def absolute(source: str) -> str:
    """The same source independent of the working directory: a relative path becomes absolute."""
    name, colon, place = source.partition(":")
    if name in NAMES:
        return f"{name}:{Path(place).expanduser().resolve()}" if colon and place else source
    path = Path(source).expanduser()
    return str(path.resolve()) if source and path.exists() else source


def _measured(whole: DataSet, part: str) -> DataSet:
    """A data set whose validation images are replaced by another part of it, or by all images."""
    if part == "test":
        raise ConfigurationError(f"{whole.name} has no part 'test'; its validation part is the test set.")
    if part == "train":
        return replace(whole, validation=whole.train, measured=MEASURED[part])
    if part == "all":
        return replace(whole, validation=Joined(whole.train, whole.validation), measured=MEASURED[part])
    return whole


def _folder(source: str, size: int | None, seed: int, resize: str, part: str) -> DataSet:
    """Load a store or a folder of images, or raise the error that best fits what was meant."""
    path = Path(source).expanduser()
    if source and store.is_store(path):
        return store.load(path, size=size, resize=resize)
    if source and (path / "prepare" / "plan.json").is_file():
        raise DataError(f"{source}: a store that is not finished; run its `minialex prepare` again to continue.")
    if source and (path.is_dir() or (path.is_file() and path.suffix.lower() in lists.ENDINGS)):
        return folder.load(path, size=size, seed=seed, resize=resize, part=part)
    if source and path.exists():
        raise DataError(f"{source}: a file, not a folder of images or a list of them ({', '.join(lists.ENDINGS)}); an "
                        f"archive of a named data set is given as cifar10:{source}")  # fmt: skip
    if "/" in source or "\\" in source or source.startswith((".", "~")):
        raise DataError(f"{source}: no such folder.")
    raise ConfigurationError(f"data = '{source}' is unknown; use {', '.join(NAMES)}, or the path of a store, a folder "
                             f"of images or a list of them.{nearest(source.partition(':')[0], NAMES)}")  # fmt: skip
