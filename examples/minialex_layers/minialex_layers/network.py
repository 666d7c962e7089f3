"""A network with the three layers: ``minialex train --network leaky``, as this package's entry point calls it."""

from __future__ import annotations

from minialex.network.layers import Conv2d, Flatten, Linear, MaxPool2d
from minialex.network.network import Network
from minialex_layers.batch_norm import BatchNorm2d
from minialex_layers.gelu import GELU
from minialex_layers.leaky_relu import LeakyReLU

AROUND = ((2, 2), (2, 2))


def network(fields):
    """Two convolutions with batch normalisation, and two full layers, in as many columns as the recipe says."""
    return Network(
        "leaky",
        (3, fields.crop, fields.crop),
        (
            Conv2d("conv1", 16, 5, padding=AROUND, std=0.1),
            BatchNorm2d("norm1"),
            LeakyReLU("leaky1", 0.1),
            MaxPool2d("pool1"),
            Conv2d("conv2", 32, 5, padding=AROUND, std=0.05),
            BatchNorm2d("norm2"),
            LeakyReLU("leaky2", 0.1),
            MaxPool2d("pool2"),
            Flatten("flatten"),
            Linear("fc3", 64, std=0.03, sees="all"),
            GELU("gelu3"),
            Linear("fc4", fields.classes, std=0.1, sees="all", on="first"),
        ),
    )
