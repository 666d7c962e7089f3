"""Batches of images, read in the background while the network computes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import Split, read_into
from minialex.errors import ConfigurationError

Batch = tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""Indices into the part [n], images [n, 3, S, S], labels [n]."""


THREADS = sys.platform != "emscripten"
"""Whether Python can start threads here: in a browser it cannot."""


PIECE = 1 << 20
"""The fewest bytes of pixels per piece of work for a thread, if there are as many: handing out work costs, too."""


def count(n: int, batch_size: int, *, drop_last: bool = True) -> int:
    """Number of batches in an epoch of n images."""
    return n // batch_size if drop_last else -(-n // batch_size)


def batches(
    split: Split,
    order: NDArray[np.int64],
    batch_size: int,
    *,
    start: int = 0,
    prefetch: int | None = None,
    workers: int = 1,
    drop_last: bool = True,
    empty: Callable[[tuple[int, ...]], NDArray[np.uint8]] | None = None,
) -> Generator[Batch, None, None]:
    """Yield (indices, images, labels) batch by batch, in the given order, whatever `prefetch` and `workers` are.

    The iterator is a generator. Threads exist from the first ``next`` until it is exhausted, raises or is closed
    (``contextlib.closing``, or when it is dropped), and are gone when that returns.

    Args:
        order: indices of the images, int64 [N]; see `epoch_order`
        start: number of batches to skip at the beginning, when an epoch is resumed
        prefetch: number of batches to read ahead; None: enough to give every thread two pieces of work, at least two
            (none in a browser, which has no threads); 0 reads in the caller's thread and starts none
        workers: number of reading threads. A batch of more than `PIECE` bytes is divided among them; smaller ones are
            read whole, one per thread
        drop_last: whether to drop a last batch with fewer than `batch_size` images (training) or yield it (evaluation)
        empty: allocates the uninitialised memory of a batch of a shape; None: NumPy's. It is called once per batch,
            and may reuse memory that is no longer referenced

    Raises:
        ConfigurationError: an invalid batch size, start, prefetch or number of workers
        DataError: an unreadable image, when its batch is due
    """
    if batch_size < 1:
        raise ConfigurationError(f"batch_size = {batch_size}; use 1 or more.")
    if start < 0 or (prefetch or 0) < 0 or workers < 1:
        raise ConfigurationError(f"start = {start}, prefetch = {prefetch}, workers = {workers}; use 0, 0, 1 or more.")
    pieces = min(workers, batch_size, max(1, batch_size * 3 * split.size**2 // PIECE))  # per batch
    if prefetch is None:
        prefetch = max(2, 2 * workers // pieces) if THREADS else 0
    last = count(len(order), batch_size, drop_last=drop_last)
    chosen = (order[i * batch_size : (i + 1) * batch_size] for i in range(start, last))
    return _batches(split, chosen, prefetch, workers, pieces, empty or _empty)


def _empty(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.empty(shape, np.uint8)


def _batches(
    split: Split,
    chosen: Iterator[NDArray[np.int64]],
    prefetch: int,
    workers: int,
    pieces: int,
    empty: Callable[[tuple[int, ...]], NDArray[np.uint8]],
) -> Generator[Batch, None, None]:
    labels = split.labels  # only once, since a part may compute them

    def made(indices: NDArray[np.int64]) -> Batch:
        return indices, empty((len(indices), 3, split.size, split.size)), labels[indices]

    def begin(batch: Batch) -> tuple[Batch, list[Future[None]]]:
        parts = zip(*(np.array_split(array, min(pieces, len(batch[0]))) for array in batch[:2]), strict=True)
        return batch, [pool.submit(read_into, split, *part) for part in parts]

    def end(batch: Batch, parts: Sequence[Future[None]]) -> Batch:
        for part in parts:
            part.result()
        return batch

    if prefetch == 0:
        for batch in map(made, chosen):
            read_into(split, *batch[:2])
            yield batch
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minialex-data")
    try:
        waiting: deque[tuple[Batch, list[Future[None]]]] = deque()
        for batch in map(made, chosen):
            waiting.append(begin(batch))
            if len(waiting) > prefetch:
                yield end(*waiting.popleft())
        while waiting:
            yield end(*waiting.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
