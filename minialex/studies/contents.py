"""Digests of what a recipe names by a path: the name stays when images are exchanged or a network is edited."""

from __future__ import annotations

import hashlib
import json
from functools import cache

from minialex.data import NAMES, absolute, load
from minialex.data.digest import digest
from minialex.engine import fingerprint
from minialex.network import variants
from minialex.recipe.fields import Recipe, is_own

_networks: dict[str, str] = {}  # by the network's fields


def digests(recipe: Recipe) -> dict[str, str]:
    """SHA-256, in hexadecimal, of a recipe's images and of its network; empty for data and networks with names.

    They are computed once in a process: of a store from its checksums, of a folder from the bytes of its files.

    Raises:
        ConfigurationError: If the network is missing.
        DataError: If the images are missing or damaged.
    """
    found = {}
    if recipe.data.partition(":")[0] not in NAMES:
        found["images sha256"] = _images(absolute(recipe.data), recipe.resize)
    if is_own(recipe.model):
        fields = json.dumps(recipe.table("network"), sort_keys=True)
        if fields not in _networks:
            _networks[fields] = _network(recipe)
        found["network sha256"] = _networks[fields]
    return found


def _network(recipe: Recipe) -> str:
    """Of what it computes, in training and not, and of the layers' fields and initial values, which no step holds."""
    recipe = recipe.replace(classes=recipe.classes or 10)  # 0: as many as the data has
    network = variants.build(recipe)
    held = fingerprint.text((network.layers, network.parameters(recipe.columns)))
    steps = fingerprint.of_network(recipe), fingerprint.of_network(recipe, "infer")
    return hashlib.sha256("".join((*steps, held)).encode()).hexdigest()


@cache
def _images(source: str, resize: str) -> str:
    data = load(source, resize=resize)
    return hashlib.sha256((digest(data.train) + digest(data.validation)).encode()).hexdigest()
