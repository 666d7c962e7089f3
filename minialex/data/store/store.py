"""A store: a large data set as squares of pixels of one size in a few large files, made once by `minialex prepare`.

It is a folder with, for each part (``train``, ``validation``) and shard:

- ``train-00000.images``: uint8 [n, 3, size, size], RGB, and nothing else: ``numpy.memmap`` reads it;
- ``train-00000.safetensors``: ``labels`` int64 [n]; ``crc32`` uint32 [n], of each image's bytes; ``about``, a JSON text
  as uint8: the images' names, what was left out, and what was done to the others;

and ``statistics.safetensors`` (mean image, covariance, its eigenvalues and eigenvectors), ``left-out.tsv`` and
``treated.tsv`` (which images, and why), and ``store.json``: the classes, and the size and SHA-256 of all these files.
``store.json`` is written last: a folder without it is not a store.

Training reads images through memory maps, so a store may be larger than memory. Every image's CRC-32 is verified when
the image is first read; hashing the whole shard instead would take seconds per batch, since a shuffled batch touches
nearly as many shards as it has images. `check` verifies the SHA-256 of everything.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import DataSet, from_start
from minialex.data.statistics import Statistics
from minialex.errors import ConfigurationError, DataError
from minialex.screen.formats import shell
from minialex.storage import atomic, safetensors

MANIFEST = "store.json"
STATISTICS = "statistics.safetensors"
LEFT_OUT, TREATED = "left-out.tsv", "treated.tsv"
FORMAT, READ = "minialex store 2", ("minialex store 1", "minialex store 2")
PARTS = ("train", "validation")
_AGAIN = "prepare the store again."
_OPEN_MAPS = 512  # shards mapped at a time; each keeps a file open, and the usual limit is 1,024
_BLOCK = 64  # images that `check` reads at a time


class Shard(NamedTuple):
    """A shard, as listed in ``store.json``."""

    images: int  # number of images
    sha256: str  # of the images file
    index_sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of ``store.json``."""

    name: str  # of the data set
    size: int  # height and width of the images
    class_names: tuple[str, ...]
    words: tuple[str, ...]  # empty if only the classes' names are known
    shards: Mapping[str, tuple[Shard, ...]]  # by part
    sums: Mapping[str, str]  # SHA-256 of the other files, by name
    left_out: int  # number of files that are not in the store
    treated: int  # number of unusual images
    made_with: str  # versions of the decoders
    resize: str = "one-step"  # how images were made square, see `minialex.data.images`
    source: str = ""  # full path of the source; like all that follows, empty in stores of format 1
    validation: str = ""
    words_file: str = ""
    listed: str = ""  # SHA-256 of the source's list of images

    def count(self, part: str) -> int:
        """Number of images in a part."""
        return sum(shard.images for shard in self.shards[part])


def is_store(folder: Path) -> bool:
    """Whether a folder is a complete store."""
    return (folder / MANIFEST).is_file()


def images_path(folder: Path, part: str, number: int) -> Path:
    """The path of a shard's pixels."""
    return folder / f"{part}-{number:05d}.images"


def index_path(folder: Path, part: str, number: int) -> Path:
    """The path of a shard's labels, checksums and names."""
    return folder / f"{part}-{number:05d}.safetensors"


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``store.json``, with a checksum of itself; from then on the folder is a store."""
    body = {"format": FORMAT, **asdict(manifest)}
    atomic.write_json(folder / MANIFEST, {**body, "sha256": _own_sum(body)})


def _own_sum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read ``store.json``. Raises DataError: it is missing, damaged, or of another version."""
    path = folder / MANIFEST
    try:
        body = json.loads(path.read_bytes())
        if body.pop("sha256") != _own_sum(body):
            raise ValueError("its SHA-256 differs")
        if (form := body.pop("format")) not in READ:
            raise DataError(f"{path}: '{form}' is not supported, only '{FORMAT}': update minialex, or {_AGAIN}")
        body |= {name: tuple(body[name]) for name in ("class_names", "words")}
        body["shards"] = {part: tuple(Shard(*shard) for shard in body["shards"][part]) for part in PARTS}
        return Manifest(**body)
    except FileNotFoundError:
        raise DataError(f"{folder}: no store, or one that is not finished ({MANIFEST} is missing); "
                        "`minialex prepare` makes or completes one.") from None  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged ({error}); {_AGAIN}") from None


@dataclass(frozen=True)
class Index:
    """The contents of a shard's safetensors file."""

    labels: NDArray[np.int64]  # [n]
    crc32: NDArray[np.uint32]  # [n]
    names: tuple[str, ...]  # of the images, in the source
    left_out: tuple[tuple[str, str], ...]  # (name, reason) of files that are not in the shard
    treated: tuple[tuple[str, str], ...]  # (name, what was done)
    sha256: str  # of the images file


def write_index(path: Path, index: Index) -> None:
    """Write an index, completely or not at all; equal contents give equal bytes."""
    about = {"names": index.names, "left_out": index.left_out, "treated": index.treated, "sha256": index.sha256}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)  # metadata has a limit
    safetensors.write(path, {"labels": index.labels, "crc32": index.crc32, "about": text})


def read_index(path: Path) -> tuple[Index, str]:
    """Read an index, and the SHA-256 of its file. Raises DataError: it is missing or damaged."""
    try:
        data = path.read_bytes()
        arrays = safetensors.parse(data)
        about = json.loads(arrays["about"].tobytes())
        labels, crc32 = arrays["labels"], arrays["crc32"]
        if labels.dtype != np.int64 or crc32.dtype != np.uint32 or not len(labels) == len(crc32) == len(about["names"]):
            raise ValueError("its arrays do not fit together")
        pairs = {key: tuple((str(a), str(b)) for a, b in about[key]) for key in ("left_out", "treated")}
        index = Index(labels, crc32, tuple(about["names"]), pairs["left_out"], pairs["treated"], about["sha256"])
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged ({error}); {_AGAIN}") from None
    return index, hashlib.sha256(data).hexdigest()


def load(place: str | os.PathLike[str], *, size: int | None = None, resize: str = "one-step") -> DataSet:
    """Load a store as a data set: labels in memory, images on disk.

    Raises:
        ConfigurationError: a size other than the store's is requested, or another way of resizing
        DataError: not a store, or one of its files is missing, damaged or truncated
    """
    folder = Path(place).expanduser()
    manifest = read_manifest(folder)
    if size not in (None, manifest.size):
        raise ConfigurationError(f"{folder}: holds images of {manifest.size} x {manifest.size} pixels, not {size}: "
                                 f"set --image-size {manifest.size} (and --crop).")  # fmt: skip
    if resize != manifest.resize:
        raise ConfigurationError(f"{folder}: was prepared with --resize {manifest.resize}, not {resize}: "
                                 f"set --resize {manifest.resize}.")  # fmt: skip
    train, validation = (StoreSplit(folder, part, manifest) for part in PARTS)
    statistics = read_statistics(folder, manifest)
    return DataSet(manifest.name, train, validation, manifest.class_names, manifest.words, statistics)


def write_statistics(folder: Path, statistics: Statistics) -> str:
    """Write ``statistics.safetensors``: mean, covariance, eigenvalues, eigenvectors; return its SHA-256."""
    names = ("mean", "covariance", "eigenvalues", "eigenvectors")
    return safetensors.write(folder / STATISTICS, {name: getattr(statistics, name) for name in names})


def read_statistics(folder: Path, manifest: Manifest) -> Statistics:
    """The mean image and the covariance of the training images. Raises DataError: they are missing or damaged."""
    path = folder / STATISTICS
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from None
    if hashlib.sha256(data).hexdigest() != manifest.sums.get(STATISTICS):
        raise DataError(f"{path}: damaged (its SHA-256 differs); {_AGAIN}")
    arrays = safetensors.parse(data)
    return Statistics(arrays["mean"], arrays["covariance"])


class StoreSplit:
    """One part of a store. Its images stay on disk; labels and checksums are in memory, 13 bytes per image."""

    def __init__(self, folder: Path, part: str, manifest: Manifest) -> None:
        self.folder, self.part, self.manifest, self.size = folder, part, manifest, manifest.size
        shards = manifest.shards[part]
        labels, crc32 = [np.zeros(0, np.int64)], [np.zeros(0, np.uint32)]
        for number, shard in enumerate(shards):
            path = index_path(folder, part, number)
            index, sha256 = read_index(path)
            if sha256 != shard.index_sha256:
                raise DataError(f"{path}: damaged (its SHA-256 differs); {_AGAIN}")
            labels.append(index.labels)
            crc32.append(index.crc32)
        self.labels = np.concatenate(labels)
        self._crc32 = np.concatenate(crc32)
        self._verified = np.zeros(len(self.labels), np.bool_)
        self._starts = np.cumsum([0, *(shard.images for shard in shards)])
        self._map = lru_cache(_OPEN_MAPS)(self._open)

    def __len__(self) -> int:
        return len(self.labels)

    def name(self, index: int) -> str:
        """An image's name in its source."""
        number, row = self._where(index)
        return read_index(index_path(self.folder, self.part, number))[0].names[row]

    def digest(self, chosen: NDArray[np.int64]) -> str:
        """SHA-256 of the chosen images of the part, from the checksums of its shards."""
        found = hashlib.sha256(np.asarray(chosen, np.int64).tobytes())
        for shard in self.manifest.shards[self.part]:
            found.update(f"{shard.images} {shard.sha256} {shard.index_sha256}\n".encode())
        return found.hexdigest()

    def _where(self, index: int) -> tuple[int, int]:
        """The shard of an image, and its index there."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _open(self, number: int) -> tuple[mmap.mmap, NDArray[np.uint8]]:
        """Map a shard; refuse a file of the wrong size, which would later end the process with a bus error."""
        path = images_path(self.folder, self.part, number)
        count, size = self.manifest.shards[self.part][number].images, self.size
        expected = count * 3 * size**2
        try:
            with path.open("rb") as file:
                nbytes = os.fstat(file.fileno()).st_size
                if nbytes != expected:
                    raise self._wrong_size(number, nbytes)
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); {_AGAIN}") from None
        return mapped, np.frombuffer(mapped, np.uint8).reshape(count, 3, size, size)

    def _wrong_size(self, number: int, nbytes: int) -> DataError:
        expected = self.manifest.shards[self.part][number].images * 3 * self.size**2
        return DataError(
            f"{images_path(self.folder, self.part, number)}: {nbytes:,} bytes, expected {expected:,}; {_AGAIN}"
        )

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The images at some indices, uint8 [n, 3, size, size]; each is verified by its checksum the first time.

        Raises:
            DataError: a damaged image, or an unreadable shard; the message names file and offset
        """
        indices = np.arange(len(self))[indices]  # allows negative indices; IndexError beyond the end
        out = np.empty((len(indices), 3, self.size, self.size), np.uint8)
        self.read_into(indices, out)
        return out

    def read_into(self, indices: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
        """The same, read into `out`; `indices` are int64 [n]."""
        indices = from_start(indices, len(self))
        nbytes = 3 * self.size**2
        order = np.argsort(indices)  # in the order on disk
        numbers = np.searchsorted(self._starts, indices[order], side="right") - 1
        images = (indices[order] - self._starts[numbers]).tolist()
        shards = [self._map(number) for number in numbers.tolist()]
        if hasattr(mmap.mmap, "madvise"):  # lets the disk begin with all of them at once
            for (pages, _), image in zip(shards, images, strict=True):
                first = image * nbytes // mmap.PAGESIZE * mmap.PAGESIZE
                pages.madvise(mmap.MADV_WILLNEED, first, (image + 1) * nbytes - first)
        rows, new = order.tolist(), (~self._verified[indices[order]]).tolist()
        for place, (row, image, (pages, pixels)) in enumerate(zip(rows, images, shards, strict=True)):
            if pages.size() != len(pages):  # the file was truncated since: touching its pages would end the process
                raise self._wrong_size(int(numbers[place]), pages.size())
            out[row] = pixels[image]
            if new[place]:  # two threads may do this at once, with the same result
                index = int(indices[row])
                if zlib.crc32(out[row]) != self._crc32[index]:
                    path = images_path(self.folder, self.part, int(numbers[place]))
                    check = shell("minialex", "store", "check", self.folder)
                    raise DataError(
                        f"{path}: the image at byte {image * nbytes:,} is damaged (its CRC-32 differs); `{check}` "
                        "looks for more."
                    )
                self._verified[index] = True


class Damage(NamedTuple):
    """Damage to a store: the file, the byte where it begins (−1: the whole file), and what is wrong."""

    file: str
    offset: int
    what: str


def check(
    place: str | os.PathLike[str],
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Damage]:
    """Read the whole store and compare every file with its SHA-256.

    Args:
        workers: number of threads; one per processor if None
        progress: called with the number of images done and their total

    Returns:
        The damage, in the order of the files; an empty list for an intact store.

    Raises:
        DataError: not a store, or its ``store.json`` is damaged
    """
    folder = Path(place).expanduser()
    manifest = read_manifest(folder)
    total = sum(manifest.count(part) for part in PARTS)
    lock, done = threading.Lock(), 0

    def seen(count: int) -> None:
        nonlocal done
        with lock:
            done += count
            progress(done, total)

    files = [STATISTICS, LEFT_OUT, TREATED]
    damages = [damage for name in files for damage in _check_file(folder / name, manifest.sums.get(name))]
    shards = [(part, number) for part in PARTS for number in range(len(manifest.shards[part]))]
    pool = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="minialex-check")
    try:
        for of_shard in pool.map(lambda shard: list(_check_shard(folder, manifest, seen, *shard)), shards):
            damages += of_shard
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return damages


def _check_file(path: Path, expected: str | None) -> Iterator[Damage]:
    try:
        if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            yield Damage(path.name, -1, "its SHA-256 differs")
    except OSError as error:
        yield Damage(path.name, -1, f"cannot be read ({error.strerror})")


def _check_shard(
    folder: Path, manifest: Manifest, seen: Callable[[int], None], part: str, number: int
) -> Iterator[Damage]:
    shard, nbytes = manifest.shards[part][number], 3 * manifest.size**2
    path, index_file = images_path(folder, part, number), index_path(folder, part, number)
    index: Index | None = None
    try:
        index, sha256 = read_index(index_file)
        if sha256 != shard.index_sha256:
            yield Damage(index_file.name, -1, "its SHA-256 differs")
            index = None
    except DataError as error:
        yield Damage(index_file.name, -1, str(error).partition(": ")[2])
    digest = hashlib.sha256()
    damaged = []
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            expected = shard.images * nbytes
            if size != expected:
                yield Damage(path.name, min(size, expected), f"{size:,} bytes, expected {expected:,}")
            for first in range(0, shard.images, _BLOCK):
                block = file.read(min(_BLOCK, shard.images - first) * nbytes)
                digest.update(block)
                for image in range(len(block) // nbytes):
                    own = zlib.crc32(memoryview(block)[image * nbytes : (image + 1) * nbytes])
                    if index is not None and own != index.crc32[first + image]:
                        what = f"image {first + image} ({index.names[first + image]}): its CRC-32 differs"
                        damaged.append(Damage(path.name, (first + image) * nbytes, what))
                seen(min(_BLOCK, shard.images - first))
    except OSError as error:
        yield Damage(path.name, -1, f"cannot be read ({error.strerror})")
        return
    yield from damaged
    if not damaged and size == expected and digest.hexdigest() != shard.sha256:
        yield Damage(path.name, -1, "its SHA-256 differs")
