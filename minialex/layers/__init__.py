"""Layers: one small module a kind. The cost, softmax cross-entropy, is applied by `minialex.columns`."""

from minialex.layers.conv2d import Conv2d as Conv2d
from minialex.layers.dropout import Dropout as Dropout
from minialex.layers.flatten import Flatten as Flatten
from minialex.layers.layer import Context as Context
from minialex.layers.layer import Layer as Layer
from minialex.layers.layer import Parameter as Parameter
from minialex.layers.linear import Linear as Linear
from minialex.layers.local_response_norm import LocalResponseNorm as LocalResponseNorm
from minialex.layers.max_pool2d import MaxPool2d as MaxPool2d
from minialex.layers.relu import ReLU as ReLU
from minialex.layers.spatial_response_norm import SpatialResponseNorm as SpatialResponseNorm
from minialex.layers.tanh import Tanh as Tanh
