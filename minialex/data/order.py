"""In which order an epoch visits the training images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.errors import ConfigurationError, nearest

SHUFFLES = ("each-epoch", "once")


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: str = "each-epoch") -> NDArray[np.int64]:
    """The order of n images in an epoch, int64 [n]: a permutation that depends on (seed, epoch) alone.

    Args:
        shuffle: ``"each-epoch"``, a new order every time, or ``"once"``, the order of epoch 0 for ever, as in the
            2012 program, whose batches were shuffled when they were made (FACTS row 25)

    Raises:
        ConfigurationError: an unknown `shuffle`
    """
    if shuffle not in SHUFFLES:
        raise ConfigurationError(f"shuffle = '{shuffle}' is unknown; use {' or '.join(SHUFFLES)}."
                                 f"{nearest(shuffle, SHUFFLES)}")  # fmt: skip
    step = epoch if shuffle == "each-epoch" else 0
    return philox.permutation(philox.Stream(seed, philox.purpose("order"), step=step), n)
