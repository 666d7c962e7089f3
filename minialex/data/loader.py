"""Batches of images, read in the background while the network computes."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from minialex.data.dataset import Split
from minialex.errors import ConfigurationError

Batch = tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]
"""Indices into the part [n], images [n, 3, S, S], labels [n]."""


THREADS = sys.platform != "emscripten"
"""Whether Python can start threads here: in a browser it cannot."""


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
) -> Generator[Batch, None, None]:
    """Yield (indices, images, labels) batch by batch, in the given order whatever `prefetch` and `workers` are.

    The iterator is a generator. Threads exist from the first ``next`` until it is exhausted, raises or is closed
    (``contextlib.closing``, or when it is dropped), and are gone when that returns.

    Args:
        order: which images, int64 [N]; see `epoch_order`
        start: number of batches to leave out at the beginning: where a resumed epoch continues
        prefetch: batches read ahead, twice as many as threads if None (none in a browser, which has no threads); 0
            reads in the caller's thread and starts none
        workers: threads that read, each a batch of its own; more than one helps where images are decoded
        drop_last: leave out a last batch with fewer than `batch_size` images (training), or yield it (evaluation)

    Raises:
        ConfigurationError: a batch size, start, prefetch or number of workers that cannot be used
        DataError: an image that cannot be read, when its batch is due
    """
    if prefetch is None:
        prefetch = 2 * workers if THREADS else 0
    if batch_size < 1:
        raise ConfigurationError(f"batch_size = {batch_size}; use 1 or more.")
    if start < 0 or prefetch < 0 or workers < 1:
        raise ConfigurationError(f"start = {start}, prefetch = {prefetch}, workers = {workers}; use 0, 0, 1 or more.")
    last = count(len(order), batch_size, drop_last=drop_last)
    pieces = (order[i * batch_size : (i + 1) * batch_size] for i in range(start, last))
    return _batches(split, pieces, prefetch, workers)


def _batches(
    split: Split, pieces: Iterator[NDArray[np.int64]], prefetch: int, workers: int
) -> Generator[Batch, None, None]:
    labels = split.labels  # once: a part may compute them

    def read(indices: NDArray[np.int64]) -> Batch:
        return indices, split.read(indices), labels[indices]

    if prefetch == 0:
        yield from map(read, pieces)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="minialex-data")
    try:
        waiting: deque[Future[Batch]] = deque()
        for indices in pieces:
            waiting.append(pool.submit(read, indices))
            if len(waiting) > prefetch:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
