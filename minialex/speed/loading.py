"""How fast a data set can feed training: only the loader, as training uses it, without processing the images."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from minialex import data as data_sets
from minialex.data.draws import epoch_order
from minialex.data.loader import batches
from minialex.data.store import store
from minialex.errors import ConfigurationError


def bench_data(
    source: str,
    batch_size: int = 128,
    seconds: float = 10.0,
    *,
    threads: int = 2,
    seed: int = 0,
    most: int | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> dict[str, Any]:
    """Read shuffled training batches for some seconds, epoch after epoch, and measure the rate.

    Args:
        source: a data set for `minialex.data.load`: a store, a folder of images, a name
        batch_size: images per batch
        seconds: when to stop, at the end of a batch
        threads: number of threads that read ahead, like the recipe's ``loader_threads``
        seed: seed of the order
        most: stop after this many images, if that is sooner
        progress: called with the number of images read so far

    Returns:
        dict, ready for JSON:
            ``data``, ``kind`` (``"store"`` or ``"images"``), ``image_size``, ``images_in_set``, ``bytes_in_set`` (of
            pixels); ``batch_size``, ``threads``, ``processors``; ``images`` read, ``first_readings`` among them (whose
            checksums were verified, in a store), ``seconds``, ``images_per_second``, ``megabytes_per_second`` (10^6
            bytes of pixels); ``slowest_batch_seconds``, the longest wait for a batch, and ``open_seconds``, until the
            first image could be asked for

    Raises:
        ConfigurationError: fewer images than in a batch, or an invalid number
        DataError: as in `minialex.data.load`, or an unreadable image
    """
    if not seconds > 0:
        raise ConfigurationError(f"seconds = {seconds}; use more than 0.")
    began = time.perf_counter()
    data = data_sets.load(source)
    split = data.train
    if len(split) < batch_size:
        raise ConfigurationError(
            f"'{data.name}' has {len(split)} training images, fewer than a batch of {batch_size}; use a smaller batch."
        )
    opened = time.perf_counter() - began
    images, slowest = 0, 0.0
    start = last = time.perf_counter()
    for epoch in itertools.count(1):
        order = epoch_order(len(split), seed=seed, epoch=epoch)
        with closing(batches(split, order, batch_size, workers=threads)) as stream:
            for _, pixels, _ in stream:
                now = time.perf_counter()
                slowest, last = max(slowest, now - last), now
                images += len(pixels)
                progress(images)
                if now - start >= seconds or (most and images >= most):
                    break
        if last - start >= seconds or (most and images >= most):
            break
    elapsed = max(last - start, 1e-9)
    nbytes = 3 * split.size**2
    is_store = store.is_store(Path(source).expanduser())
    return {
        "data": data.name,
        "kind": "store" if is_store else "images",
        "image_size": split.size,
        "images_in_set": len(split),
        "bytes_in_set": len(split) * nbytes,
        "batch_size": batch_size,
        "threads": threads,
        "processors": os.cpu_count(),
        "images": images,
        "first_readings": min(images, len(split)) if is_store else 0,
        "seconds": elapsed,
        "images_per_second": images / elapsed,
        "megabytes_per_second": images * nbytes / elapsed / 1e6,
        "slowest_batch_seconds": slowest,
        "open_seconds": opened,
    }
