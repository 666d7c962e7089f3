"""CIFAR-10 in the official archive's layout, packed or unpacked.

The archive holds a folder ``cifar-10-batches-py`` with five training batches, a test batch (our validation part)
and ``batches.meta``, each a pickled dictionary. Batches may have any number of images. Source: Krizhevsky, "Learning
multiple layers of features from tiny images", 2009; https://www.cs.toronto.edu/~kriz/cifar.html

Nothing is unpacked to disk, and nothing in the archive is executed: members are streamed and checked one by one, and
pickles are read by `minialex.data.sets.safe_pickle`. The gzip checksum is verified at the end.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import ArraySplit, DataSet
from minialex.data.sets import files, safe_pickle
from minialex.errors import DataError

ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
META = "batches.meta"
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LARGEST_MEMBER = 128 << 20  # bytes; an official batch has 31 MB
LARGEST_ARCHIVE = 400 << 20  # bytes unpacked; the official archive has 186 MB
MOST_MEMBERS = 64  # the official archive has 9


def load(place: str | None = None) -> DataSet:
    """Read CIFAR-10 into memory (184 MB for the official 60,000 images).

    Args:
        place: the archive, the unpacked folder, or a folder with either in it; None looks in the usual folders

    Raises:
        DataError: nothing found, or an archive that is damaged, truncated, hostile or not CIFAR-10
    """
    looked = files.candidates(place, "cifar10")
    for path in looked:
        if path.is_file():
            return _assemble(_archive_members(path), str(path))
        if (path / ARCHIVE).is_file():
            return _assemble(_archive_members(path / ARCHIVE), str(path / ARCHIVE))
        for folder in (path, path / FOLDER):
            if (folder / TEST).is_file():
                return _assemble(_folder_members(folder), str(folder))
    raise files.not_found("cifar10", looked, f"{ARCHIVE} and no {FOLDER}")


def _assemble(members: Iterator[tuple[str, bytes]], where: str) -> DataSet:
    """Join the batches in their own order, whatever the archive's."""
    batches: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]] = {}
    class_names: tuple[str, ...] = CLASS_NAMES
    for name, content in members:
        member = f"{where}: {name}"
        values = safe_pickle.loads(content, member)
        if not isinstance(values, dict):
            raise DataError(f"{member}: contains no dictionary; this is not CIFAR-10.")
        values = {key.encode() if isinstance(key, str) else key: value for key, value in values.items()}
        if name == META:
            class_names = _class_names(values, member)
        else:
            batches[name] = _batch(values, member)
    missing = [name for name in (*TRAIN, TEST) if name not in batches]
    if missing:
        raise DataError(f"{where}: {', '.join(missing)} missing; the archive is incomplete, download it again.")
    train = [batches[name] for name in TRAIN]
    images, labels = (np.concatenate(parts) for parts in zip(*train, strict=True))
    return DataSet("cifar10", ArraySplit(images, labels), ArraySplit(*batches[TEST]), class_names)


def _batch(values: dict[Any, Any], member: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [n, 3, 32, 32] and labels int64 [n] of one batch."""
    data, labels = values.get(b"data"), values.get(b"labels")
    if not isinstance(data, np.ndarray) or data.ndim != 2 or data.shape[1] != 3 * 32 * 32 or not len(data):
        shape = list(data.shape) if isinstance(data, np.ndarray) else type(data).__name__
        raise DataError(f"{member}: images should be uint8 [n, 3072], but are {shape}; this is not CIFAR-10.")
    if not isinstance(labels, list) or len(labels) != len(data):
        count = len(labels) if isinstance(labels, list) else "no"
        raise DataError(f"{member}: {len(data)} images but {count} labels; download it again.")
    wrong = next((label for label in labels if type(label) is not int or not 0 <= label < 10), None)
    if wrong is not None:
        raise DataError(f"{member}: a label is {str(wrong)[:40]}, not a number from 0 to 9; download it again.")
    return data.reshape(-1, 3, 32, 32), np.array(labels, np.int64)


def _class_names(values: dict[Any, Any], member: str) -> tuple[str, ...]:
    names = values.get(b"label_names")
    if not isinstance(names, list) or len(names) != 10 or not all(isinstance(name, bytes | str) for name in names):
        raise DataError(f"{member}: label_names should be ten names; this is not CIFAR-10.")
    return tuple(name.decode("latin-1") if isinstance(name, bytes) else name for name in names)


def _folder_members(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the batches in an unpacked folder."""
    for name in (*TRAIN, TEST, META):
        path = folder / name
        if not path.is_file():
            continue
        try:
            if path.stat().st_size > LARGEST_MEMBER:
                raise DataError(f"{path}: {path.stat().st_size:,} bytes, more than a batch can have.")
            yield name, path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}).") from None


class _Metered(io.RawIOBase):
    """A stream that refuses to return more than `LARGEST_ARCHIVE` bytes, however small its file."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self._stream, self._path = stream, path
        self._left = LARGEST_ARCHIVE

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(min(size, 1 << 20) if size >= 0 else 1 << 20)
        self._left -= len(block)
        if self._left < 0:
            raise DataError(f"{self._path}: unpacks to more than {LARGEST_ARCHIVE:,} bytes; this is not CIFAR-10.")
        return block


def _archive_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the batches in a tar archive, compressed or not, streamed once."""
    with files.opened(path) as content:
        stream = _Metered(content, path)
        yield from _checked_members(stream, path)
        while stream.read(1 << 20):  # to the end, where the checksum is
            pass


def _checked_members(stream: _Metered, path: Path) -> Iterator[tuple[str, bytes]]:
    seen: set[str] = set()
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for count, member in enumerate(archive):
            if count >= MOST_MEMBERS:
                raise DataError(f"{path}: more than {MOST_MEMBERS} members; this is not CIFAR-10.")
            where = f"{path}: member '{member.name[:80]}'"
            parts = PurePosixPath(member.name).parts
            if member.name.startswith("/") or ".." in parts or "\\" in member.name:
                raise DataError(f"{where} points out of the archive; refused.")
            if member.isdir():
                continue
            if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                raise DataError(f"{where} is a link, a device or another special file; refused.")
            if not 0 <= member.size <= LARGEST_MEMBER:
                raise DataError(f"{where} claims {member.size:,} bytes, more than a batch can have; refused.")
            if len(parts) != 2 or parts[0] != FOLDER or parts[1] not in (*TRAIN, TEST, META):
                continue  # readme.html
            if parts[1] in seen:
                raise DataError(f"{where} occurs twice; refused.")
            seen.add(parts[1])
            reader = archive.extractfile(member)
            content = reader.read() if reader else b""
            if len(content) != member.size:
                raise DataError(f"{where} is cut short; download the archive again.")
            yield parts[1], content
