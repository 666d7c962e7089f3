"""The networks: the paper's table, with its numbers. Variants are in `minialex.network.variants`."""

from __future__ import annotations

import math

from minialex.backend.arrays import Padding
from minialex.network.layers import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, ReLU
from minialex.network.network import Network

ONE_SIDED: Padding = ((0, 3), (0, 3))
"""Three rows of zeros below and three columns to the right, as in 2012: of 224 rows conv1 then makes 55."""


def around(rows: int) -> Padding:
    """Padding with the same number of zeros on all four sides."""
    return ((rows, rows), (rows, rows))


def he(inputs: int) -> float:
    """The standard deviation of initial weights that preserves a signal's size through ReLUs (He et al. 2015)."""
    return math.sqrt(2 / inputs)


def glorot(inputs: int, outputs: int) -> float:
    """The standard deviation between those that preserve a signal's size forward and backward (Glorot, Bengio 2010)."""
    return math.sqrt(2 / (inputs + outputs))


# fmt: off
ALEXNET = Network("alexnet", (3, 224, 224), (
    Conv2d("conv1", 96, 11, stride=4, padding=ONE_SIDED), ReLU("relu1"), LocalResponseNorm("norm1"),
    MaxPool2d("pool1", 3, stride=2, ceil=True),
    Conv2d("conv2", 256, 5, padding=around(2), bias=1), ReLU("relu2"), LocalResponseNorm("norm2"),
    MaxPool2d("pool2", 3, stride=2, ceil=True),
    Conv2d("conv3", 384, 3, padding=around(1), sees="all"), ReLU("relu3"),
    Conv2d("conv4", 384, 3, padding=around(1), bias=1), ReLU("relu4"),
    Conv2d("conv5", 256, 3, padding=around(1), bias=1), ReLU("relu5"),
    MaxPool2d("pool5", 3, stride=2, ceil=True), Flatten("flatten"),
    Linear("fc6", 4096, bias=1, sees="all"), ReLU("relu6"), Dropout("dropout6", 0.5),
    Linear("fc7", 4096, bias=1, sees="all"), ReLU("relu7"), Dropout("dropout7", 0.5),
    Linear("fc8", 1000, sees="all", on="first"),
))
"""The network of section 3.5 and figure 2, 60,965,224 parameters in two columns: five convolutional and three fully
connected layers. conv3 and the fully connected layers read both columns; conv2, conv4 and conv5 their own; fc8 is only
on the first."""

ALEXNET_SMALL = Network("alexnet_small", (3, 28, 28), (
    Conv2d("conv1", 16, 5, padding=around(2), std=he(3 * 5 * 5)), ReLU("relu1"), LocalResponseNorm("norm1"),
    MaxPool2d("pool1", 3, stride=2, ceil=True),
    Conv2d("conv2", 32, 5, padding=around(2), std=he(8 * 5 * 5), bias=0.1), ReLU("relu2"), LocalResponseNorm("norm2"),
    MaxPool2d("pool2", 3, stride=2, ceil=True),
    Conv2d("conv3", 48, 3, padding=around(1), std=he(32 * 3 * 3), sees="all"), ReLU("relu3"),
    Conv2d("conv4", 48, 3, padding=around(1), std=he(24 * 3 * 3), bias=0.1), ReLU("relu4"),
    Conv2d("conv5", 32, 3, padding=around(1), std=he(24 * 3 * 3), bias=0.1), ReLU("relu5"),
    MaxPool2d("pool5", 3, stride=2, ceil=True), Flatten("flatten"),
    Linear("fc6", 128, std=he(32 * 3 * 3), bias=0.1, sees="all"), ReLU("relu6"), Dropout("dropout6", 0.1),
    Linear("fc7", 128, std=he(128), bias=0.1, sees="all"), ReLU("relu7"), Dropout("dropout7", 0.1),
    Linear("fc8", 10, std=0.1, sees="all", on="first"),
))
"""AlexNet's sibling for images of 32 × 32: the same layers, columns and innovations, at a hundredth of the work. Crops
of 28 × 28 give maps of 28, 14, 7 and 3 rows. Kernels with fewer inputs need larger initial weights."""

CIFAR4 = Network("cifar4", (3, 32, 32), (
    Conv2d("conv1", 32, 5, padding=around(2), std=0.0001), MaxPool2d("pool1", 3, stride=2, ceil=True), ReLU("relu1"),
    Conv2d("conv2", 32, 5, padding=around(2)), ReLU("relu2"), MaxPool2d("pool2", 3, stride=2, ceil=True),
    Conv2d("conv3", 64, 5, padding=around(2)), ReLU("relu3"), MaxPool2d("pool3", 3, stride=2, ceil=True),
    Flatten("flatten"), Linear("fc4", 10, sees="all", on="first"),
))
"""The four-layer CIFAR-10 network of Krizhevsky's program cuda-convnet (``layers-19pct.cfg``, 2012), to which the
paper's footnote 3 refers for figure 1. There the second and third pooling average; here all take maxima."""

CIFAR5 = Network("cifar5", (3, 24, 24), (
    Conv2d("conv1", 64, 5, padding=around(2), std=0.0001), MaxPool2d("pool1", 3, stride=2, ceil=True), ReLU("relu1"),
    LocalResponseNorm("norm1", size=9, k=1, alpha=0.001),
    Conv2d("conv2", 64, 5, padding=around(2)), ReLU("relu2"), LocalResponseNorm("norm2", size=9, k=1, alpha=0.001),
    MaxPool2d("pool2", 3, stride=2, ceil=True),
    Conv2d("conv3", 32, 3, padding=around(1), std=0.04), ReLU("relu3"),
    Conv2d("conv4", 32, 3, padding=around(1), std=0.04), ReLU("relu4"),
    Flatten("flatten"), Linear("fc5", 10, sees="all", on="first"),
))
"""cuda-convnet's network with 13 % error on CIFAR-10 (``layers-conv-local-13pct.cfg``) with the normalisation of the
one with 11 %: the pair behind section 3.3's claim. There every position of conv3 and conv4 has its own kernels; here,
as in all networks of this library, positions share them. conv3 has 64 kernels in the network with 11 %."""
# fmt: on

MODELS = {network.name: network for network in (ALEXNET, ALEXNET_SMALL, CIFAR4, CIFAR5)}
"""Networks by the name in a recipe's field `model`."""
