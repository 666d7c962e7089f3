"""Layers of one's own for minialex: what a package that adds some looks like."""

from minialex_layers.batch_norm import BatchNorm2d as BatchNorm2d
from minialex_layers.gelu import GELU as GELU
from minialex_layers.leaky_relu import LeakyReLU as LeakyReLU
from minialex_layers.network import network as network
