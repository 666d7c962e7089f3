"""A network as one row of whole layers, its columns as groups: the form that other programs run.

Two columns that read only themselves are one grouped convolution; a layer that reads all columns is an ordinary one.
Both exporters, ONNX and PyTorch, walk this row, so that what a column is, is decided once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.draws import centre_crop_offset
from minialex.network import variants
from minialex.network.layers import Conv2d, Layer, Linear
from minialex.network.layers.layer import Shape
from minialex.runs.weights_file import Weights


@dataclass(frozen=True)
class Whole:
    """A layer over all columns.

    Attributes:
        layer: its hyper-parameters
        groups: parts of its input that do not see each other; each computes its share of the output
        input, output: shapes without N, of all columns side by side
        weight, bias: of a convolution or a fully connected layer, float32: [K, C/groups, R, S] or [F, D], and [K]
    """

    layer: Layer
    groups: int
    input: Shape
    output: Shape
    weight: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None


def whole_layers(weights: Weights) -> list[Whole]:
    """The network's layers in a row, with their arrays as float32.

    A fully connected layer whose columns read only themselves gets the weights of an ordinary one with zeros
    where they do not read: no program has it otherwise.
    """
    recipe = weights.recipe
    network = variants.build(recipe)
    row: list[Whole] = []
    shape, divided = network.input_shape, False
    for stage in network.stages(recipe.columns):
        layer = stage.layer
        groups = shape[0] // stage.seen[0]
        divided = divided or layer.divides
        width = stage.output[0] * (stage.columns if divided else 1)
        output = (width, *stage.output[1:])
        arrays: dict[str, NDArray[np.float32]] = {}
        if isinstance(layer, Conv2d | Linear):
            for name in ("weight", "bias"):
                arrays[name] = np.asarray(weights.tensors[f"{layer.name}.{name}"], np.float32)
            if isinstance(layer, Linear) and groups > 1:
                arrays["weight"] = _with_zeros(arrays["weight"], groups)
                groups = 1
        row.append(Whole(layer, groups, shape, output, **arrays))
        shape = output
    return row


def _with_zeros(weight: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """[F, D] for groups that read D features each, as [F, groups·D]."""
    F, D = weight.shape
    whole = np.zeros((groups, F // groups, groups, D), np.float32)
    for group, part in enumerate(np.split(weight, groups)):
        whole[group, :, group] = part
    return whole.reshape(F, groups * D)


@dataclass(frozen=True)
class Preprocessing:
    """What stands before the first layer: (pixels − mean) · scale, of a crop of RGB pixels from 0 to 255.

    Attributes:
        mean: float32 [3, crop, crop], or [3, 1, 1] where each channel has one
        scale: what the difference is multiplied with
    """

    mean: NDArray[np.float32]
    scale: float


def preprocessing(weights: Weights) -> Preprocessing:
    """The preprocessing of the centre view. At ``mean = "pixel"`` other crops have another part of the mean image."""
    recipe, mean = weights.recipe, weights.statistics.mean
    if recipe.mean == "channel":
        part = mean.mean(axis=(1, 2), dtype=np.float64)[:, None, None]
    else:
        first = centre_crop_offset(recipe.image_size, recipe.crop)
        part = mean[:, first : first + recipe.crop, first : first + recipe.crop]
    return Preprocessing(np.ascontiguousarray(part, np.float32), recipe.pixel_scale)


def facts(weights: Weights) -> Mapping[str, Any]:
    """What exports say of themselves in their own metadata: the recipe, the classes, the data and the origin."""
    import json

    return {
        "minialex.recipe.fields": weights.recipe.to_toml(),
        "minialex.class_names": json.dumps(list(weights.labels)),
        "minialex.words": json.dumps(list(weights.words)),
        "minialex.data": weights.data,
        "minialex.origin": json.dumps(dict(weights.origin)),
    }
