"""The networks: the paper's table as code.

Every number that the paper states stands here or in the defaults of `minialex.recipe.fields.NetworkFields`; whatever
may be varied is a field there. `alexnet()` without arguments is the network of the paper: 60,965,224 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from minialex.errors import ConfigurationError, nearest
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
from minialex.network.layers.layer import Sees
from minialex.network.network import Network
from minialex.recipe.fields import NetworkFields, load

CONV1_PADDING = {"one-sided": ((0, 3), (0, 3)), "symmetric": ((2, 2), (2, 2)), "none": ((0, 0), (0, 0))}


def alexnet(fields: NetworkFields | None = None) -> Network:
    """The network of section 3.5 and figure 2, in two columns: five convolutional layers and three full ones.

    Of 224 rows conv1 makes 55 because three rows of zeros are added below (and to the right), as in 2012.
    conv3 and the full layers read both columns; conv2, conv4 and conv5 their own; fc8 is computed on the first.
    """
    fields = fields or NetworkFields()
    k1, k2, k3, k4, k5 = fields.kernels
    p2, p3, p4, p5 = fields.paddings
    f6, f7 = fields.features
    return _network(
        "alexnet",
        fields,
        [
            *_block(fields, 1, Conv2d("conv1", k1, 11, 4, CONV1_PADDING[fields.conv1_padding]), pool=True),
            *_block(fields, 2, Conv2d("conv2", k2, 5, 1, _around(p2), bias=fields.bias), pool=True),
            *_block(fields, 3, Conv2d("conv3", k3, 3, 1, _around(p3), sees="all")),
            *_block(fields, 4, Conv2d("conv4", k4, 3, 1, _around(p4), bias=fields.bias)),
            *_block(fields, 5, Conv2d("conv5", k5, 3, 1, _around(p5), bias=fields.bias), pool=True),
            *_sixth(fields),
            Flatten("flatten"),
            *_full(fields, 6, f6),
            *_full(fields, 7, f7),
            Linear("fc8", fields.classes, sees="all", on="first"),
        ],
    )


def alexnet_small(fields: NetworkFields | None = None) -> Network:
    """AlexNet's sibling for images of 32 × 32: the same layers, columns and innovations, at a hundredth of the work.

    Crops of 28 × 28 give maps of 28, 14, 7 and 3 rows; conv1 is 5 × 5 at stride 1. Without arguments: the recipe
    ``small`` with ten classes.
    """
    fields = fields or replace(load("small").network, classes=10)
    k1, k2, k3, k4, k5 = fields.kernels
    p2, p3, p4, p5 = fields.paddings
    f6, f7 = fields.features
    return _network(
        "alexnet_small",
        fields,
        [
            *_block(fields, 1, Conv2d("conv1", k1, 5, 1, _around(2)), pool=True),
            *_block(fields, 2, Conv2d("conv2", k2, 5, 1, _around(p2), bias=fields.bias), pool=True),
            *_block(fields, 3, Conv2d("conv3", k3, 3, 1, _around(p3), sees="all")),
            *_block(fields, 4, Conv2d("conv4", k4, 3, 1, _around(p4), bias=fields.bias)),
            *_block(fields, 5, Conv2d("conv5", k5, 3, 1, _around(p5), bias=fields.bias), pool=True),
            *_sixth(fields),
            Flatten("flatten"),
            *_full(fields, 6, f6),
            *_full(fields, 7, f7),
            Linear("fc8", fields.classes, sees="all", on="first"),
        ],
    )


MODELS = {"alexnet": alexnet, "alexnet_small": alexnet_small}


def build(fields: NetworkFields) -> Network:
    """The network that a recipe's table [network] describes.

    Raises:
        ConfigurationError: If a layer does not fit; the message begins with its name.
    """
    if fields.model not in MODELS:
        raise ConfigurationError(f"no model '{fields.model}'.{nearest(fields.model, MODELS)}")
    network = MODELS[fields.model](fields)
    network.stages(fields.columns)  # says at once what does not fit
    return network


def _around(rows: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """The same padding on all four sides."""
    return ((rows, rows), (rows, rows))


def _activation(fields: NetworkFields, name: str) -> Layer:
    return ReLU(f"relu{name}") if fields.activation == "relu" else Tanh(f"tanh{name}")


def _block(fields: NetworkFields, number: int, convolution: Conv2d, pool: bool = False) -> Iterator[Layer]:
    """A convolutional layer with what follows it: non-linearity, normalisation, pooling, in the recipe's order."""
    if convolution.name in fields.omit:
        if pool:
            yield _pool(fields, number)
        return
    std = fields.std_middle if number >= 3 else fields.std
    sees: Sees = convolution.sees
    if fields.connect != "paper":
        sees = "all" if fields.connect == "everywhere" else "own"
    yield replace(convolution, std=std, sees=sees)
    norms: list[Layer] = []
    if convolution.name in fields.norm_layers:
        scope: Sees = "all" if fields.norm_scope == "all" else "own"
        norms.append(
            LocalResponseNorm(
                f"norm{number}",
                fields.norm_size,
                fields.norm_k,
                fields.norm_alpha,
                fields.norm_beta,
                fields.norm_alpha_over_n,
                sees=scope,
            )
        )
    if number == 2 and fields.spatial_norm:
        norms.append(SpatialResponseNorm(f"spatial{number}"))
    neurons = _activation(fields, str(number) if number < 6 else f"_conv{number}")  # relu6 is fc6's
    pooling = [_pool(fields, number)] if pool else []
    if fields.norm_place == "after-pool":
        yield from [neurons, *pooling, *norms]
    elif fields.norm_place == "before-relu-1" and number == 1:
        yield from [*norms, neurons, *pooling]
    else:
        yield from [neurons, *norms, *pooling]


def _sixth(fields: NetworkFields) -> Iterator[Layer]:
    """The convolutional layer over pool5 that the networks have which were trained on 22,000 classes first (6)."""
    if fields.conv6:
        sixth = Conv2d("conv6", fields.conv6, 3, 1, _around(1), bias=fields.bias, sees="all")
        yield from _block(fields, 6, sixth)


def _pool(fields: NetworkFields, number: int) -> Layer:
    ties: Literal["first", "all"] = "all" if fields.pool_ties == "all" else "first"
    return MaxPool2d(f"pool{number}", fields.pool_size, fields.pool_stride, fields.pool_ceil, ties)


def _full(fields: NetworkFields, number: int, features: int) -> Iterator[Layer]:
    """A hidden fully connected layer with its neurons and dropout."""
    mode: Literal["paper", "inverted"] = "inverted" if fields.dropout_mode == "inverted" else "paper"
    drop = [Dropout(f"dropout{number}", fields.dropout, mode)] if fields.dropout else []
    if fields.dropout_place == "before":
        yield from drop
    sees: Sees = "own" if fields.connect == "never" else "all"
    yield Linear(f"fc{number}", features, std=fields.std_full, bias=fields.bias, sees=sees)
    yield _activation(fields, str(number))
    if fields.dropout_place == "after":
        yield from drop


def _network(name: str, fields: NetworkFields, layers: Sequence[Layer]) -> Network:
    """The layers as a network; with He's initialisation each layer's std follows from what it sees."""
    last = layers[-1]
    assert isinstance(last, Linear)
    layers = [*layers[:-1], replace(last, std=fields.std)]
    network = Network(name, (3, fields.crop, fields.crop), tuple(layers))
    if fields.init == "gaussian":
        return network
    scaled: list[Layer] = []
    for stage in network.stages(fields.columns):
        layer = stage.layer
        if isinstance(layer, Conv2d):
            layer = replace(layer, std=math.sqrt(2 / (stage.seen[0] * layer.size**2)))
        elif isinstance(layer, Linear) and layer.name != last.name:
            layer = replace(layer, std=math.sqrt(2 / stage.seen[0]))
        scaled.append(layer)
    return replace(network, layers=tuple(scaled))
