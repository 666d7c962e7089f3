"""Keeps several ranks in agreement while they train one run: they begin alike, continue alike and stop alike."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from minialex import __version__
from minialex.engine.session import Session
from minialex.errors import ConfigurationError, DataError, NumericalError
from minialex.ranks.group import Group
from minialex.recipe.fields import Recipe, fields

OWN = ("devices", "loader_threads", "data", "init_from")
"""Recipe fields that may differ between ranks: where something is, not what it is."""


class Pulse(NamedTuple):
    """What a rank tells the others after a step.

    Attributes:
        losses: its shards' losses
        right: how many of its images were classified correctly
        finite: whether its losses and all updates were finite numbers
        stop: the request to stop that it got; empty if none
    """

    losses: tuple[float, ...]
    right: int
    finite: bool
    stop: str


def check_alike(group: Group, recipe: Recipe, decides: Mapping[str, str]) -> None:
    """Refuse ranks that would not train alike: with other versions, machines, recipes or images.

    Args:
        decides: see `minialex.training.resuming.deciding`

    Raises:
        ConfigurationError, DataError: On all ranks alike; the message names the first rank that differs from rank 0.
    """
    chosen = {name: str(getattr(recipe, name)) for name in fields() if name not in OWN}
    told = group.exchange([__version__, sys.byteorder, chosen, dict(decides)])
    version, order, recipe_there, images = told[0]
    for rank, (other_version, other_order, other_recipe, other_images) in enumerate(told):
        if other_version != version:
            raise ConfigurationError(
                f"rank {rank} runs minialex {other_version}, rank 0 runs {version}: install the same everywhere"
            )
        if other_order != order:
            raise ConfigurationError(f"rank {rank} runs on a {other_order}-endian machine, rank 0 on a {order}-endian")
        for name, value in recipe_there.items():
            if other_recipe.get(name) != value:
                raise ConfigurationError(
                    f"rank {rank} was given another recipe than rank 0: {name} is {other_recipe.get(name)}, not {value}"
                )
        for name in sorted({*images, *other_images}):
            if other_images.get(name) != images.get(name):
                raise DataError(
                    f"rank {rank} has other data than rank 0 ({name} differs): give all the same, or copy it again"
                )


def check_weights(group: Group, session: Session, step: int) -> None:
    """Refuse to save weights that are not the same on all ranks, which they are by construction.

    Raises:
        NumericalError: On all ranks alike; the message names the first rank that differs from rank 0.
    """
    if group.size == 1:
        return
    sums = [zlib.crc32(np.ascontiguousarray(array).data) for _, array in sorted(session.weights().items())]
    told = group.exchange(sums)
    for rank, found in enumerate(told):
        if found != told[0]:
            raise NumericalError(
                f"rank {rank} ({group.places[rank]}) has other weights than rank 0 after step {step} (a fault of its "
                "memory, its device or its libraries?): continue from the last checkpoint without it"
            )
