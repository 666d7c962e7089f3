"""From feature maps to one row of features, before the first fully connected layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.network.layers.layer import Context, Layer, Parameters, Shape


@dataclass(frozen=True)
class Flatten(Layer):
    """[C,H,W] -> [C·H·W], channel by channel, so that concatenated columns are the flattened whole maps."""

    def output_shape(self, shape: Shape, columns: int) -> Shape:
        return (math.prod(shape),)

    def window(self, axis: int) -> None:
        return None

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        return backend.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), x.shape

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        return backend.reshape(dy, saved), {}
