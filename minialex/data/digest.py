"""A digest of a part of a data set: equal images with equal labels in the same order have the same digest."""

from __future__ import annotations

import hashlib

import numpy as np

from minialex.data.dataset import Split, blocks, unwrapped


def digest(split: Split) -> str:
    """The SHA-256, in hexadecimal, of a part's labels and images, wherever they are stored.

    For files it is computed from their bytes, for a store from its shards' checksums, otherwise from the pixels.

    Raises:
        DataError: an unreadable image
    """
    whole, chosen = unwrapped(split)
    if hasattr(whole, "digest"):
        return str(whole.digest(chosen))
    found = hashlib.sha256(np.ascontiguousarray(split.labels, "<i8").tobytes())
    for block in blocks(split):
        found.update(np.ascontiguousarray(split.read(block)).tobytes())
    return found.hexdigest()
