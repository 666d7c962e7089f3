"""Overlapping max pooling (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.backend.rules import pool_size
from minialex.errors import ConfigurationError
from minialex.network.layers.layer import Context, Layer, Parameters, Shape


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """The largest value of each `size` × `size` window at `stride`. Input [C,H,W] -> [C,P,Q].

    With `ceil` the last windows may extend past the edge; `ties` says which of several equal maxima gets the gradient.
    """

    size: int = 3
    stride: int = 2
    ceil: bool = False
    ties: Literal["first", "all"] = "first"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.whole_numbers("size", "stride")
        self.expect("ceil", isinstance(self.ceil, bool), "True or False")
        self.one_of("ties", "first", "all")

    def output_shape(self, shape: Shape, columns: int) -> Shape:
        if len(shape) != 3:
            raise ConfigurationError(f"expected [C,H,W], got {shape}")
        P, Q = (pool_size(n, self.size, self.stride, self.ceil) for n in shape[1:])
        return shape[0], P, Q

    def window(self, axis: int) -> tuple[int, int, int]:
        return self.size, self.stride, 0

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        y = backend.max_pool2d(x, size=self.size, stride=self.stride, ceil=self.ceil)
        return y, (x, y)

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        dx = backend.max_pool2d_backward(dy, *saved, size=self.size, stride=self.stride, ceil=self.ceil, ties=self.ties)
        return dx, {}
