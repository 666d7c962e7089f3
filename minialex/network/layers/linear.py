"""The fully connected layer (paper, section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.errors import ConfigurationError
from minialex.network.layers.layer import Context, Layer, Parameter, Parameters, Shape, is_finite


@dataclass(frozen=True)
class Linear(Layer):
    """`features` neurons, each connected to everything that a column sees. Input [D] -> [features/columns].

    Weights begin as N(0, std²), biases as the constant `bias`.
    """

    divides: ClassVar[bool] = True

    features: int
    std: float = 0.01
    bias: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.whole_numbers("features")
        self.expect("std", is_finite(self.std) and self.std >= 0, "a number from 0")
        self.finite_numbers("bias")

    def output_shape(self, shape: Shape, columns: int) -> Shape:
        if len(shape) != 1:
            raise ConfigurationError(f"expected [D], got {shape}: flatten the maps first")
        return (self.share(self.features, columns),)

    def window(self, axis: int) -> None:
        return None

    def parameters(self, shape: Shape, column: int, columns: int) -> dict[str, Parameter]:
        features = self.share(self.features, columns)
        first = column * features
        return {
            "weight": Parameter((features, shape[0]), self.std, 0.0, first * shape[0]),
            "bias": Parameter((features,), 0.0, self.bias, first),
        }

    def multiply_adds(self, shape: Shape, columns: int) -> int:
        return shape[0] * self.share(self.features, columns)

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        return backend.linear(x, parameters["weight"], parameters["bias"]), x

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        dx, dw, db = backend.linear_backward(dy, saved, parameters["weight"], need_dx=context.need_dx)
        return dx, {"weight": dw, "bias": db}
