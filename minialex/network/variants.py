"""Variants of a network that a recipe can ask for: functions from network to network, and `build`, which calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from minialex.errors import ConfigurationError, nearest
from minialex.network import own
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
from minialex.network.models import CIFAR4, CIFAR5, MODELS, ONE_SIDED, around, glorot, he
from minialex.network.network import Network
from minialex.recipe.fields import NetworkFields, is_own

CONV1_PADDING = {"one-sided": ONE_SIDED, "symmetric": around(2), "none": around(0)}


def build(fields: NetworkFields) -> Network:
    """The network that a recipe describes.

    Raises:
        ConfigurationError: If there is no such model, or a layer does not fit; the message begins with its name.
    """
    if is_own(fields.model):
        return own.build(fields)
    if fields.model not in MODELS:
        raise ConfigurationError(f"no model '{fields.model}'.{nearest(fields.model, MODELS)}")
    network = MODELS[fields.model]
    of_cifar: dict[str, tuple[Callable[[Network, NetworkFields], Network], ...]] = {  # nothing else of these varies
        CIFAR4.name: (framed, with_neurons, initialised),
        CIFAR5.name: (framed, renormalised, with_neurons, initialised),
    }
    eight = sized, with_sixth, connected, normalised, pooled, with_neurons, with_dropout, shortened, initialised
    for vary in of_cifar.get(network.name, eight):
        network = vary(network, fields)
    network.stages(fields.columns)  # raises at once if something does not fit
    return network


def each(network: Network, change: Callable[[Layer], Iterable[Layer]]) -> Network:
    """The network with each layer replaced by none, one or several layers."""
    return replace(network, layers=tuple(new for layer in network.layers for new in change(layer)))


def blocks(network: Network) -> list[list[Layer]]:
    """The layers in groups: a convolutional or fully connected layer (or the flattening) and all up to the next."""
    groups: list[list[Layer]] = []
    for layer in network.layers:
        if isinstance(layer, Conv2d | Linear | Flatten) or not groups:
            groups.append([])
        groups[-1].append(layer)
    return groups


def framed(network: Network, fields: NetworkFields) -> Network:
    """Set the size of the crop and the number of classes."""
    *layers, last = network.layers
    if isinstance(last, Linear):
        last = replace(last, features=fields.classes)
    return replace(network, layers=(*layers, last), input_shape=(3, fields.crop, fields.crop))


def sized(network: Network, fields: NetworkFields) -> Network:
    """Set the sizes of the crop, the layers and their padding, and the number of classes."""
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    widths = dict(zip(names, (*fields.kernels, *fields.features, fields.classes), strict=True))
    paddings = {name: around(rows) for name, rows in zip(names[1:5], fields.paddings, strict=True)}
    sizes = dict(zip(names, fields.kernel_sizes, strict=False))

    def change(layer: Layer) -> list[Layer]:
        if isinstance(layer, Conv2d):
            padding = CONV1_PADDING[fields.conv1_padding] if layer.padding == ONE_SIDED else layer.padding
            size = sizes.get(layer.name, layer.size)
            if layer.padding == around(layer.size // 2):  # "same" padding: as many rows out as in
                padding = around(size // 2)
            padding = paddings.get(layer.name, padding)
            return [replace(layer, kernels=widths[layer.name], size=size, padding=padding)]
        return [replace(layer, features=widths[layer.name])] if isinstance(layer, Linear) else [layer]

    return replace(each(network, change), input_shape=(3, fields.crop, fields.crop))


def with_sixth(network: Network, fields: NetworkFields) -> Network:
    """Add the convolutional layer after pool5, as in the networks first trained on 22,000 classes (section 6)."""
    if not fields.conv6:
        return network
    added = [Conv2d("conv6", fields.conv6, 3, padding=around(1), bias=1, sees="all"), ReLU("relu_conv6")]
    # relu6 is fc6's
    return each(network, lambda layer: [*added, layer] if isinstance(layer, Flatten) else [layer])


def connected(network: Network, fields: NetworkFields) -> Network:
    """Set where columns read each other (section 3.2): as in the paper, only in the last layer, or everywhere."""
    last, everywhere = network.layers[-1].name, fields.connect == "everywhere"

    def change(layer: Layer) -> list[Layer]:
        learns = isinstance(layer, Conv2d | Linear) and layer.name != last
        return [replace(layer, sees="all" if everywhere else "own") if learns else layer]

    return network if fields.connect == "paper" else each(network, change)


def norm_constants(fields: NetworkFields) -> dict[str, Any]:
    """The constants of a normalisation (section 3.3), and which channels it sees."""
    return {
        "size": fields.norm_size,
        "k": fields.norm_k,
        "alpha": fields.norm_alpha,
        "beta": fields.norm_beta,
        "alpha_over_n": fields.norm_alpha_over_n,
        "sees": "all" if fields.norm_scope == "all" else "own",
    }


def normalised(network: Network, fields: NetworkFields) -> Network:
    """Set which layers are normalised (section 3.3), how, and where: after ReLU, before the first, after pooling."""
    layers: list[Layer] = []
    for convolution, *block in blocks(network):
        norms: list[Layer] = []
        number = convolution.name[-1]
        if convolution.name in fields.norm_layers:
            norms.append(LocalResponseNorm(f"norm{number}", **norm_constants(fields)))
        if convolution.name == "conv2" and fields.spatial_norm:
            norms.append(SpatialResponseNorm("spatial2"))
        rest = [layer for layer in block if not isinstance(layer, LocalResponseNorm)]
        place = 1  # after the ReLU
        if fields.norm_place == "before-relu-1" and convolution.name == "conv1":
            place = 0
        elif fields.norm_place == "after-pool":
            place = len(rest)
        layers += [convolution, *rest[:place], *norms, *rest[place:]]
    return replace(network, layers=tuple(layers))


def renormalised(network: Network, fields: NetworkFields) -> Network:
    """Keep a network's own normalisations in place: those in `norm_layers`, with the fields' constants."""

    def change(layer: Layer) -> list[Layer]:
        if not isinstance(layer, LocalResponseNorm):
            return [layer]
        wanted = layer.name.replace("norm", "conv") in fields.norm_layers
        return [replace(layer, **norm_constants(fields))] if wanted else []

    return each(network, change)


def pooled(network: Network, fields: NetworkFields) -> Network:
    """Set the pooling windows (section 3.4)."""
    windows: dict[str, Any] = {
        "size": fields.pool_size,
        "stride": fields.pool_stride,
        "ceil": fields.pool_ceil,
        "ties": fields.pool_ties,
    }
    return each(network, lambda layer: [replace(layer, **windows) if isinstance(layer, MaxPool2d) else layer])


def with_neurons(network: Network, fields: NetworkFields) -> Network:
    """Set the activation function (section 3.1)."""

    def change(layer: Layer) -> list[Layer]:
        return [Tanh(layer.name.replace("relu", "tanh")) if isinstance(layer, ReLU) else layer]

    return network if fields.activation == "relu" else each(network, change)


def with_dropout(network: Network, fields: NetworkFields) -> Network:
    """Set dropout (section 4.2): its rate, its scaling, and whether it comes before or after the layer."""
    settings: dict[str, Any] = {"rate": fields.dropout, "mode": fields.dropout_mode}
    layers: list[Layer] = []
    for block in blocks(network):
        drop = [replace(layer, **settings) for layer in block if isinstance(layer, Dropout)]
        rest = [layer for layer in block if not isinstance(layer, Dropout)]
        drop = drop if fields.dropout else []
        layers += [*drop, *rest] if fields.dropout_place == "before" else [*rest, *drop]
    return replace(network, layers=tuple(layers))


def shortened(network: Network, fields: NetworkFields) -> Network:
    """Without the convolutional layers of `omit` (section 7), their ReLUs and normalisations; their pooling stays."""
    layers: list[Layer] = []
    for block in blocks(network):
        gone = block[0].name in fields.omit
        layers += [layer for layer in block if isinstance(layer, MaxPool2d)] if gone else block
    return replace(network, layers=tuple(layers))


def initialised(network: Network, fields: NetworkFields) -> Network:
    """Set the initial weights and biases (section 5)."""
    stds = {"conv1": fields.std, "conv2": fields.std, "fc6": fields.std_full, "fc7": fields.std_full, "fc8": fields.std}
    last = network.layers[-1].name

    def change(layer: Layer) -> list[Layer]:
        if not isinstance(layer, Conv2d | Linear):
            return [layer]
        std = layer.std if network.name in (CIFAR4.name, CIFAR5.name) else stds.get(layer.name, fields.std_middle)
        inputs = seen[layer.name] * (layer.size**2 if isinstance(layer, Conv2d) else 1)
        if fields.init == "he" and layer.name != last:
            std = he(inputs)
        elif fields.init == "glorot" and layer.name != last:
            std = glorot(inputs, made[layer.name] * (layer.size**2 if isinstance(layer, Conv2d) else 1))
        return [replace(layer, std=std, bias=fields.bias if layer.bias else 0.0)]

    seen = {stage.layer.name: stage.seen[0] for stage in network.stages(fields.columns)}
    made = {stage.layer.name: stage.output[0] for stage in network.stages(fields.columns)}
    return each(network, change)
