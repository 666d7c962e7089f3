"""Import from ``torchvision.models.alexnet``: its state dictionary as weights of the recipe ``torchvision``.

The layers differ only in names, but the preprocessing differs: torchvision divides pixels by 255 and by a standard
deviation per channel, while here all are multiplied by one number, ``pixel_scale``. The rest of each channel's factor
goes into conv1's kernels. The product is the same; each weight of conv1 is rounded once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import CheckpointError
from minialex.exchange.whole import foreign
from minialex.network.parameters import split_name
from minialex.recipe.toml import load
from minialex.runs.weights_file import Weights, check

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
LAYERS = {
    "features.0": "conv1", "features.3": "conv2", "features.6": "conv3", "features.8": "conv4", "features.10": "conv5",
    "classifier.1": "fc6", "classifier.4": "fc7", "classifier.6": "fc8",
}  # fmt: skip


def is_torchvision(tensors: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the names are torchvision's."""
    return "features.0.weight" in tensors


def weights(tensors: Mapping[str, NDArray[Any]], what: str) -> Weights:
    """Weights for the recipe ``torchvision``, with as many classes as the last layer.

    Raises:
        CheckpointError: Names the tensor that is missing, extra, of another shape, or not finite; `what` describes the
            file.
    """
    renamed: dict[str, NDArray[Any]] = {}
    for name, array in tensors.items():
        layer, own = split_name(name)
        if layer not in LAYERS or array.dtype.kind != "f":
            raise CheckpointError(f"{what}: tensor '{name}' is not one of torchvision's alexnet")
        renamed[f"{LAYERS[layer]}.{own}"] = array
    last = renamed.get("fc8.weight")
    if last is None or not last.ndim or not len(last):
        raise CheckpointError(f"{what}: tensor 'classifier.6.weight' is missing: it has a different last layer")
    recipe = load("torchvision").replace(classes=len(last))
    check(renamed, recipe, what)
    factors = 1 / (255 * np.array(STD)) / recipe.pixel_scale
    first = renamed["conv1.weight"]
    renamed["conv1.weight"] = (first.astype(np.float64) * factors[:, None, None]).astype(first.dtype)
    return foreign(renamed, recipe, (255 * np.array(MEAN))[:, None, None], "ImageNet, as torchvision says")
