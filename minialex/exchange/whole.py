"""A network as one sequence of whole layers, with its columns as groups: the form that other programs can run.

Two columns that read only themselves are one grouped convolution; a layer that reads all columns is an ordinary one.
Both exporters, ONNX and PyTorch, walk this sequence, so that columns are interpreted in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data.draws import centre_crop_offset
from minialex.data.statistics import Statistics
from minialex.errors import ConfigurationError
from minialex.network import variants
from minialex.network.layers import (
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    Linear,
    LocalResponseNorm,
    MaxPool2d,
    ReLU,
    SpatialResponseNorm,
    Tanh,
)
from minialex.network.layers.layer import Shape
from minialex.recipe.fields import Recipe
from minialex.runs.weights_file import Weights

KNOWN = (Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU, SpatialResponseNorm, Tanh)
"""Layers that other programs have, too."""


@dataclass(frozen=True)
class Whole:
    """A layer over all columns.

    Attributes:
        layer: its hyperparameters
        groups: number of independent parts of its input; each computes its share of the output
        input, output: shapes without N, over all columns
        arrays: ``"weight"`` and ``"bias"`` of a convolution or a fully connected layer, float32: [K, C/groups, R, S] or
            [F, D], and [K]
    """

    layer: Layer
    groups: int
    input: Shape
    output: Shape
    arrays: Mapping[str, NDArray[np.float32]]


def whole_layers(weights: Weights, form: str) -> list[Whole]:
    """The network's layers in sequence, with their arrays as float32.

    A fully connected layer whose columns read only themselves becomes an ordinary one with zeros where they do not
    read, since other programs have no grouped one.

    Args:
        weights: the network and its arrays
        form: the format to be written, for messages

    Raises:
        ConfigurationError: If a layer is of an unsupported type.
    """
    recipe = weights.recipe
    network = variants.build(recipe)
    row: list[Whole] = []
    shape = network.input_shape
    for stage in network.stages(recipe.columns):
        layer = stage.layer
        if type(layer) not in KNOWN:
            known = ", ".join(sorted(kind.__name__ for kind in KNOWN))
            what = f"layer '{layer.name}' is a {type(layer).__name__}"
            raise ConfigurationError(f"{what}, which cannot be written as {form}; these can: {known}")
        groups = shape[0] // stage.seen[0]
        output = (stage.output[0] * stage.pieces, *stage.output[1:])
        names = layer.parameters(stage.seen, 0, stage.columns)
        arrays = {name: np.asarray(weights.tensors[f"{layer.name}.{name}"], np.float32) for name in names}
        if isinstance(layer, Linear) and groups > 1:
            arrays["weight"] = _with_zeros(arrays["weight"], groups)
            groups = 1
        row.append(Whole(layer, groups, shape, output, arrays))
        shape = output
    return row


def _with_zeros(weight: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """[F, D] for groups that read D features each, as [F, groups·D]."""
    F, D = weight.shape
    whole = np.zeros((groups, F // groups, groups, D), np.float32)
    for group, part in enumerate(np.split(weight, groups)):
        whole[group, :, group] = part
    return whole.reshape(F, groups * D)


def foreign(tensors: Mapping[str, NDArray[Any]], recipe: Recipe, mean: NDArray[np.floating[Any]], data: str) -> Weights:
    """Weights trained by another program: classes have no names, and there is no colour covariance.

    Args:
        mean: [3, S, S], or [3, 1, 1] for one per channel
        data: name of the data set
    """
    S = recipe.image_size
    image = np.ascontiguousarray(np.broadcast_to(mean, (3, S, S)), np.float32)
    return Weights(recipe, (), Statistics(image, np.zeros((3, 3))), tensors, data)


@dataclass(frozen=True)
class Preprocessing:
    """What precedes the first layer: (pixels − mean) · scale, of a crop of RGB pixels from 0 to 255.

    Attributes:
        mean: float32 [3, crop, crop], or [3, 1, 1] for one per channel
        scale: factor of the difference
    """

    mean: NDArray[np.float32]
    scale: float


def preprocessing(weights: Weights) -> Preprocessing:
    """The preprocessing of the centre view. With ``mean = "pixel"`` other crops use other parts of the mean image."""
    recipe, mean = weights.recipe, weights.statistics.mean
    if recipe.mean == "channel":
        part = mean.mean(axis=(1, 2), dtype=np.float64)[:, None, None]
    else:
        first = centre_crop_offset(recipe.image_size, recipe.crop)
        part = mean[:, first : first + recipe.crop, first : first + recipe.crop]
    return Preprocessing(np.ascontiguousarray(part, np.float32), recipe.pixel_scale)
