"""Images stored as files, in a folder or a list, decoded when they are read.

`minialex.data.sets.layout` and `lists` describe where files are, `minialex.data.images` how an image is processed.
Scanning the folder opens no file; `checked` then reads every image once, before a run begins, names all unusable ones,
and computes the mean image in the same pass.

If a folder has no validation part, the hash of each image's path in the folder decides whether it belongs to the tenth
that is held out. So adding, removing or renaming images moves no other image between the parts.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import DataSet, LeftOut, Split, Subset, from_start, unwrapped
from minialex.data.images import ENDINGS, RESIZES, decode, read_bytes
from minialex.data.loader import THREADS
from minialex.data.sets import layout, lists
from minialex.data.sets.listing import Entry, Listing, Source, counted, in_short, plain_name
from minialex.data.statistics import Sums
from minialex.errors import ConfigurationError, DataError, nearest

CACHE_BYTES = 512 << 20  # decoded images kept in memory, per part of a data set
VALIDATION_PART = 10  # one of ten images, if a folder has no validation part of its own
_BLOCK = 32  # images that a thread checks at a time
MEASURED = {"train": "training images", "validation": "validation images", "test": "test images", "all": "images (all)"}
"""Parts that can be measured, and the names of their images."""


def load(
    place: str | os.PathLike[str],
    *,
    size: int | None = None,
    seed: int = 0,
    resize: str = "one-step",
    part: str = "",
) -> DataSet:
    """Load a folder of images, or a list of them, as a data set; nothing is decoded yet.

    Args:
        place: the folder, or the list
        size: height and width of the images; 256 if None, as in the paper
        seed: selects a different tenth for validation, if there is no validation part
        resize: how images are made square, one of `RESIZES`
        part: the part to be measured as ``validation``, for evaluation: "train", "validation" (drawn if there is none),
            "test", "all", or "own": the validation part if there is one, else all. A single class is then enough.

    Raises:
        ConfigurationError: a size below 8 or above 4096 pixels, or an unknown way of resizing
        DataError: no such folder, no images, fewer than two classes, a class without images, or a validation class
            that is not in the training part
    """
    root = Path(place).expanduser()
    size = 256 if size is None else size
    if not 8 <= size <= 4096:
        raise ConfigurationError(f"{root}: size = {size} cannot be used; use 8 to 4096 pixels.")
    if resize not in RESIZES:
        raise ConfigurationError(f"resize = '{resize}'; use one of {', '.join(RESIZES)}.{nearest(resize, RESIZES)}")
    source = lists.source(root) if root.is_file() else layout.read(root)
    left_out: list[LeftOut] = []

    def scan(listing: Listing | None) -> FolderSplit:
        found = [] if listing is None else list(listing())
        left_out.extend(item for item in found if isinstance(item, LeftOut))
        return FolderSplit([item for item in found if isinstance(item, Entry)], size, resize)

    if part:
        if part == "own":
            part = "validation" if source.validation else "all"
        train, validation = _measured(source, part, scan, seed, root)
    else:
        train = scan(source.train)
        _complete(train, source, root, left_out)
        if source.validation is not None:
            validation = scan(source.validation)
        else:
            chosen = validation_part(train.names, train.labels, seed, str(root))
            train, validation = train.part(np.flatnonzero(~chosen)), train.part(np.flatnonzero(chosen))
    if not len(validation):
        wanted = MEASURED[part or "validation"]
        raise DataError(f"{root}: holds no {wanted} ({', '.join(ENDINGS)}){_instead(left_out)}.")
    notes = (*source.notes, *_notes(train, validation, source, left_out, part))
    return DataSet(
        source.name, train, validation, source.class_names, source.words, None, notes, tuple(left_out),
        MEASURED[part or "validation"],
    )  # fmt: skip


def _measured(
    source: Source, part: str, scan: Callable[[Listing | None], FolderSplit], seed: int, root: Path
) -> tuple[FolderSplit, FolderSplit]:
    """An empty training part, and the images to be measured."""
    if part in ("test", "train") and getattr(source, part) is None:
        raise DataError(f"{root}: has no {part} part.")
    if part == "all":
        listings = [source.train, source.validation, source.test]
        entries = [entry for listing in listings if listing for entry in scan(listing).entries]
        found = FolderSplit(entries, *scan(None).kind)
    elif part == "validation" and source.validation is None:
        whole = scan(source.train)
        found = whole.part(np.flatnonzero(validation_part(whole.names, whole.labels, seed, str(root))))
    else:
        found = scan(getattr(source, part))
    return scan(None), found


def _complete(train: FolderSplit, source: Source, root: Path, left_out: list[LeftOut]) -> None:
    """Refuse data from which nothing can be learned: one class, or a class without a training image."""
    names = source.class_names
    counts = np.bincount(train.labels, minlength=len(names))
    if not len(train):
        raise DataError(f"{root}: holds no image to train on ({', '.join(ENDINGS)}){_instead(left_out)}.")
    if not counts.all():
        empty = [name for name, count in zip(names, counts, strict=True) if not count]
        more = f" (and {len(empty) - 1} more)" if len(empty) > 1 else ""
        raise DataError(f"{root}: class '{empty[0]}'{more} holds no image ({', '.join(ENDINGS)}){_instead(left_out)}; "
                        "remove the folder or fill it.")  # fmt: skip
    if len(names) < 2:
        raise DataError(f"{root}: contains only one class, '{names[0]}': there is nothing to tell apart. Expected a "
                        "folder for each class, with its images in it.")  # fmt: skip


def _instead(left_out: Iterable[LeftOut]) -> str:
    reasons = in_short(item.reason for item in left_out)
    return f", but {counted(reasons, 3)}" if reasons else ""


def _notes(
    train: FolderSplit, validation: FolderSplit, source: Source, left_out: Sequence[LeftOut], part: str
) -> list[str]:
    """What to report about a folder before a run."""
    notes = []
    if left_out:
        notes.append(f"left out: {counted(in_short(item.reason for item in left_out))}")
    cases: dict[str, list[str]] = {}
    for name in source.class_names:
        cases.setdefault(name.casefold(), []).append(name)
    if alike := [name for names in cases.values() if len(names) > 1 for name in names]:
        notes.append(f"classes that differ only in upper and lower case are read as several: {', '.join(alike[:6])}")
    if source.test is not None and not part:
        notes.append("the test part is not used in training; `minialex evaluate RUN --part test` measures it")
    if part or source.validation is not None:
        return notes
    trained = np.bincount(train.labels, minlength=len(source.class_names))
    checked = np.bincount(validation.labels, minlength=len(source.class_names))
    if untrained := int(np.sum(trained == 0)):
        notes.append(
            f"no class has two images: {untrained:,} of {len(trained):,} are in validation without a training image"
        )
    elif unseen := int(np.sum(checked == 0)):
        single = int(np.sum(trained + checked == 1))
        alone = f"; {single:,} have only one image, which is used for training" if single else ""
        notes.append(f"{unseen:,} of {len(trained):,} classes have no validation image{alone}")
    return notes


def validation_part(names: Iterable[str], labels: NDArray[np.int64], seed: int, where: str) -> NDArray[np.bool_]:
    """Which images are held out for validation by default: those whose name's hash is in the lowest tenth.

    A name affects only its own image, with two exceptions. Each class keeps at least one training image, the one with
    the highest hash; and if no image is in the lowest tenth, the one with the lowest hash is held out. (If no class has
    two images, the first exception does not apply.)

    Args:
        names: the images' paths, relative to the folder
        labels: their classes, int64 [count]
        seed: selects a different tenth
        where: the folder's name in messages

    Returns:
        bool [count]

    Raises:
        DataError: fewer than two images
    """
    count = len(labels)
    if count < 2:
        raise DataError(f"{where}: only {count} image; training and validation need at least one each.")
    hashes = np.fromiter((name_hash(name, seed) for name in names), np.uint64, count)
    chosen = hashes < np.uint64(2**64 // VALIDATION_PART)
    several = np.bincount(labels) > 1
    order = np.lexsort((hashes, labels))  # class by class, each ordered by hash
    last = order[np.append(np.flatnonzero(np.diff(labels[order])), count - 1)]  # the highest hash of each class
    keeps = last if several.any() else last[:0]
    chosen[keeps] = False
    if not chosen.any():
        free = np.ones(count, np.bool_)
        free[keeps] = False
        lowest = np.flatnonzero(free)
        chosen[lowest[np.argmin(hashes[lowest])]] = True
    return chosen


def name_hash(name: str, seed: int) -> int:
    """64 bits of a name, the same whatever system wrote it: BLAKE2b of the seed and the path in NFC with /."""
    path = "/".join(plain_name(piece) for piece in name.replace(os.sep, "/").split("/"))
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{path}".encode(), digest_size=8).digest())


class FolderSplit:
    """Images on disk, decoded when they are read; as many as fit in `cache_bytes`, from the first on, are cached."""

    def __init__(
        self, entries: Sequence[Entry], size: int, resize: str = "one-step", cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.entries, self.size, self.resize = entries, size, resize
        self.labels = np.array([entry.label for entry in entries], np.int64)
        slots = min(len(entries), cache_bytes // (3 * size**2))
        self._cache = np.empty((slots, 3, size, size), np.uint8)  # pages are allocated only as images are written
        self._cached = np.zeros(slots, np.bool_)
        self.hashes = np.zeros(
            len(entries), np.uint64
        )  # of the bytes of the files that were read and are sound; else 0

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def names(self) -> list[str]:
        """The images' paths in the folder."""
        return [entry.name for entry in self.entries]

    @property
    def kind(self) -> tuple[int, str]:
        """Image size and way of resizing."""
        return self.size, self.resize

    def part(self, chosen: NDArray[np.int64]) -> FolderSplit:
        """The images at some ascending indices, as a part of its own."""
        return FolderSplit([self.entries[i] for i in chosen], *self.kind)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices, uint8 [n, 3, size, size]; `DataError` names a file that cannot be decoded."""
        indices = np.arange(len(self))[indices]  # allows negative indices; IndexError beyond the end
        out = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        self.read_into(indices, out)
        return out

    def read_into(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The same, read into `out`; `indices` are int64 [n]."""
        indices = from_start(indices, len(self))
        for row, index in enumerate(indices.tolist()):
            if index < len(self._cached) and self._cached[index]:
                out[row] = self._cache[index]
                continue
            try:
                out[row] = self.decode(index)
            except DataError as error:
                raise DataError(f"{self.entries[index].path}: {error}") from None

    def decode(self, index: int) -> NDArray[np.uint8]:
        """Decode one image from its file; cache it if there is room. Raises DataError: why not, without its name."""
        entry = self.entries[index]
        data = read_bytes(entry.path)
        pixels = decode(data, self.size, entry.name, self.resize).pixels
        self.hashes[index] = _hash(data)
        if index < len(self._cached):  # two threads may do this at once, but write the same bytes
            self._cache[index] = pixels
            self._cached[index] = True
        return pixels

    def digest(self, chosen: NDArray[np.int64]) -> str:
        """SHA-256 of the classes and file contents of some images; files not read yet are read."""
        found = hashlib.sha256()
        for index in chosen.tolist():
            entry = self.entries[index]
            if not self.hashes[index]:
                try:
                    self.hashes[index] = _hash(read_bytes(entry.path))
                except DataError as error:
                    raise DataError(f"{entry.path}: {error}") from None
            found.update(f"{entry.label} {self.hashes[index]:016x}\n".encode())
        return found.hexdigest()


def _hash(data: bytes) -> int:
    """64 bits of a file's bytes, never 0."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest()) or 1


Progress = Callable[[int, int], None]


def checked(
    data: DataSet,
    *,
    skip_broken: bool = False,
    parts: Sequence[str] = ("train", "validation"),
    workers: int | None = None,
    tell: Callable[[str], None] = lambda message: None,
    progress: Progress = lambda done, images: None,
) -> DataSet:
    """Read and decode every image file of a data set once, so that none fails later.

    Every file is read and decoded completely, as in training; images that fit in the cache are kept, and the mean image
    and the covariance are summed in the same pass, so this costs no time that training would not need anyway. Data sets
    whose images are not separate files are returned unchanged.

    Args:
        data: a data set from `load`, or a part of it
        skip_broken: leave out unusable images and list them in `DataSet.left_out`; otherwise they are an error
        parts: the parts to check
        workers: number of threads; one per processor if None
        tell: called with a line for each unusable image, before the error is raised
        progress: called now and then with the number of images done and their total

    Returns:
        The data set without them; its notes say how many are left out, and which images are in both parts.

    Raises:
        DataError: unusable images or, with `skip_broken`, a part or class that has none left
    """
    splits = {part: _files(getattr(data, part)) for part in parts}
    todo = {part: found for part, found in splits.items() if found is not None}
    if not todo:
        return data
    total, before = sum(len(chosen) for _, chosen in todo.values()), 0
    broken: list[tuple[str, int, str]] = []
    sums: Sums | None = None
    for part, (split, chosen) in todo.items():
        summed = Sums(split.size) if part == "train" and data.statistics is None else None
        if summed is not None or not split.hashes[chosen].all():  # not checked before
            tick = partial(_tick, progress, before, total)
            broken += [(part, row, reason) for row, reason in _decode_all(split, chosen, summed, workers, tick)]
        sums, before = summed or sums, before + len(chosen)
    if broken:
        named = [(todo[part][0].entries[int(todo[part][1][row])], reason) for part, row, reason in broken]
        if not skip_broken:
            for entry, reason in named:
                tell(f"{entry.path}: {reason}")
            first, reason = named[0]
            others = f", and {len(named) - 1:,} more" if len(named) > 1 else ""
            raise DataError(f"{len(named):,} of {total:,} images cannot be used: {first.path} ({reason.rstrip('.')})"
                            f"{others}; replace or remove them, or leave them out with --skip-broken.")  # fmt: skip
        left_out = tuple(LeftOut(entry.name, reason) for entry, reason in named)
        reasons = counted(in_short(item.reason for item in left_out))
        note = f"left out {len(named):,} of {total:,} images that cannot be used: {reasons}"
        data = replace(data, left_out=(*data.left_out, *left_out), notes=(*data.notes, note))
        for part, (_, chosen) in todo.items():
            gone = {row for of, row, _ in broken if of == part}
            kept = np.array([row for row in range(len(chosen)) if row not in gone], np.int64)
            if part == "train":
                data = replace(data, train=Subset(data.train, kept))
            else:
                data = replace(data, validation=Subset(data.validation, kept))
        _some_left(data)
    if sums is not None and sums.images:
        data = replace(data, statistics=sums.statistics())
    return replace(data, notes=(*data.notes, *_twice(data)))


def _tick(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)


def _files(split: Split) -> tuple[FolderSplit, NDArray[np.int64]] | None:
    """The files of a part and which of them it uses, if its images are files."""
    whole, chosen = unwrapped(split)
    return (whole, chosen) if isinstance(whole, FolderSplit) else None


def _decode_all(
    split: FolderSplit, chosen: NDArray[np.int64], sums: Sums | None, workers: int | None, tick: Callable[[int], None]
) -> list[tuple[int, str]]:
    """Decode some images and add them to the sums; return (row, reason) of the unusable ones."""
    lock = threading.Lock()
    done = 0

    def block(first: int) -> list[tuple[int, str]]:
        nonlocal done
        sound, broken = [], []
        rows = range(first, min(first + _BLOCK, len(chosen)))
        for row in rows:
            try:
                sound.append(split.decode(int(chosen[row])))
            except DataError as error:
                broken.append((row, str(error)))
        own = None
        if sums is not None:
            own = Sums(split.size)
            own.add(np.array(sound, np.uint8).reshape(-1, 3, split.size, split.size))
        with lock:
            if sums is not None and own is not None:
                sums.merge(own)
            done += len(rows)
            tick(done)
        return broken

    firsts = range(0, len(chosen), _BLOCK)
    workers = workers or os.cpu_count() or 1
    if workers == 1 or not THREADS:
        return [item for first in firsts for item in block(first)]
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minialex-check")
    try:
        return [item for found in pool.map(block, firsts) for item in found]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _some_left(data: DataSet) -> None:
    """Refuse data of which too little is left without broken images. Raises DataError: a class or a part is empty."""
    if not len(data.validation):
        raise DataError(f"{data.name}: no validation image can be used.")
    counts = np.bincount(data.train.labels, minlength=len(data.class_names))
    if len(data.train) and not counts.all():
        empty = data.class_names[int(np.argmin(counts))]
        raise DataError(f"{data.name}: no training image of class '{empty}' can be used; replace them, or remove it.")


def _twice(data: DataSet) -> list[str]:
    """Notes on images that are in both parts: files with the same bytes, which the check has read."""
    of_train, of_validation = _files(data.train), _files(data.validation)
    if of_train is None or of_validation is None:
        return []
    (train, chosen), (validation, held_out) = of_train, of_validation
    trained, checked = train.hashes[chosen], validation.hashes[held_out]
    rows = np.flatnonzero(np.isin(checked, trained[trained > 0]))
    if not len(rows):
        return []
    one = validation.entries[int(held_out[rows[0]])].name
    other = train.entries[int(chosen[np.flatnonzero(trained == checked[rows[0]])[0]])].name
    return [
        f"{len(rows):,} of {len(checked):,} validation images are copies of training images, byte by byte: {one} is "
        f"{other}"
    ]
