"""A digest of a part of a data set: the same images with the same labels in the same order give the same number."""

from __future__ import annotations

import hashlib

import numpy as np

from minialex.data.dataset import Split, blocks, unwrapped


def digest(split: Split) -> str:
    """SHA-256 in hexadecimal of a part's labels and images, wherever these are stored.

    For files it is computed from their bytes, for a store from its shards' sums, otherwise from the pixels.

    Raises:
        DataError: an image that cannot be read
    """
    whole, chosen = unwrapped(split)
    if hasattr(whole, "digest"):
        return str(whole.digest(chosen))
    found = hashlib.sha256(np.ascontiguousarray(split.labels, "<i8").tobytes())
    for block in blocks(split):
        found.update(np.ascontiguousarray(split.read(block)).tobytes())
    return found.hexdigest()
