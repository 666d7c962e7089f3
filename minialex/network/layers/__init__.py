"""Layers: one small module per kind. The loss, softmax cross-entropy, is applied by `minialex.engine.columns`."""

from minialex.network.layers.array_layer import ArrayLayer as ArrayLayer
from minialex.network.layers.conv2d import Conv2d as Conv2d
from minialex.network.layers.dropout import Dropout as Dropout
from minialex.network.layers.flatten import Flatten as Flatten
from minialex.network.layers.layer import Context as Context
from minialex.network.layers.layer import Layer as Layer
from minialex.network.layers.layer import Parameter as Parameter
from minialex.network.layers.linear import Linear as Linear
from minialex.network.layers.local_response_norm import LocalResponseNorm as LocalResponseNorm
from minialex.network.layers.max_pool2d import MaxPool2d as MaxPool2d
from minialex.network.layers.relu import ReLU as ReLU
from minialex.network.layers.spatial_response_norm import SpatialResponseNorm as SpatialResponseNorm
from minialex.network.layers.tanh import Tanh as Tanh
