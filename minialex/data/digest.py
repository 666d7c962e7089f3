"""What a part of a data set is, as one number: the same images with the same labels in the same order give the same."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from minialex.data.dataset import Split, Subset
from minialex.data.loader import THREADS
from minialex.data.sets.folder import FolderSplit
from minialex.data.store.store import StoreSplit
from minialex.errors import DataError

_BLOCK_BYTES = 4 << 20  # of pixels read at a time


def digest(split: Split) -> str:
    """SHA-256 in hexadecimal of a part's labels and images; it does not depend on where these lie.

    Of a store it takes the sums of the shards, so that nothing is read; of a folder it reads the files, but decodes
    none; of anything else it reads the pixels.

    Raises:
        DataError: an image that cannot be read
    """
    sum_ = hashlib.sha256()
    for piece in _pieces(split):
        sum_.update(piece)
    return sum_.hexdigest()


def _pieces(split: Split) -> Iterator[bytes]:
    yield np.ascontiguousarray(split.labels, "<i8").tobytes()
    whole, chosen = (split.whole, split.chosen) if isinstance(split, Subset) else (split, np.arange(len(split)))
    if isinstance(whole, StoreSplit):
        yield chosen.astype("<i8").tobytes()
        yield from (shard.sha256.encode() for shard in whole.manifest.shards[whole.part])
    elif isinstance(whole, FolderSplit):
        paths = [whole.paths[index] for index in chosen.tolist()]
        if THREADS:
            with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="minialex-digest") as pool:
                yield from pool.map(_of_file, paths)
        else:
            yield from map(_of_file, paths)
    else:
        rows = max(1, _BLOCK_BYTES // (3 * split.size**2))
        for start in range(0, len(split), rows):
            yield np.ascontiguousarray(split.read(np.arange(start, min(start + rows, len(split))))).tobytes()


def _of_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
