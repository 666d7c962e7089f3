"""The convolutional layer (paper, section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from minialex.backend.arrays import Array, Padding
from minialex.backend.protocol import Backend
from minialex.backend.rules import conv_size
from minialex.errors import ConfigurationError
from minialex.network.layers.layer import Context, Layer, Parameter, Parameters, Shape, is_finite, is_whole


def _is_padding(value: object) -> bool:
    """Whether a value is a pair of pairs of integers from 0, as tuples, since layers are compared and hashed."""
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(
            isinstance(pair, tuple) and len(pair) == 2 and all(is_whole(rows, 0) for rows in pair) for pair in value
        )
    )


@dataclass(frozen=True)
class Conv2d(Layer):
    """`kernels` kernels of `size` × `size` at `stride`, over all the channels that a column sees.

    Weights begin as N(0, std²), biases as the constant `bias`. Input [C,H,W] -> [kernels/columns, P, Q].
    """

    divides: ClassVar[bool] = True

    kernels: int
    size: int
    stride: int = 1
    padding: Padding = ((0, 0), (0, 0))
    std: float = 0.01
    bias: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.whole_numbers("kernels", "size", "stride")
        self.expect("padding", _is_padding(self.padding), "((above, below), (left, right)), such as ((2, 2), (2, 2))")
        self.expect("std", is_finite(self.std) and self.std >= 0, "a number from 0")
        self.finite_numbers("bias")

    def output_shape(self, shape: Shape, columns: int) -> Shape:
        if len(shape) != 3:
            raise ConfigurationError(f"expected [C,H,W], got {shape}")
        P, Q = (conv_size(n, self.size, self.stride, pad) for n, pad in zip(shape[1:], self.padding, strict=True))
        return self.share(self.kernels, columns), P, Q

    def window(self, axis: int) -> tuple[int, int, int]:
        return self.size, self.stride, self.padding[axis][0]

    def parameters(self, shape: Shape, column: int, columns: int) -> dict[str, Parameter]:
        kernels = self.share(self.kernels, columns)
        first = column * kernels
        return {
            "weight": Parameter(
                (kernels, shape[0], self.size, self.size), self.std, 0.0, first * shape[0] * self.size**2
            ),
            "bias": Parameter((kernels,), 0.0, self.bias, first),
        }

    def multiply_adds(self, shape: Shape, columns: int) -> int:
        K, P, Q = self.output_shape(shape, columns)
        return K * P * Q * shape[0] * self.size**2

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        y = backend.conv2d(x, parameters["weight"], parameters["bias"], stride=self.stride, padding=self.padding)
        return y, x

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        dx, dw, db = backend.conv2d_backward(
            dy, saved, parameters["weight"], stride=self.stride, padding=self.padding, need_dx=context.need_dx
        )
        return dx, {"weight": dw, "bias": db}
