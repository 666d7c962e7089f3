"""Local response normalisation (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.errors import ConfigurationError
from minialex.network.layers.layer import Context, Layer, Parameters, Shape


@dataclass(frozen=True)
class LocalResponseNorm(Layer):
    """x / (k + α Σ x²)^β over `size` neighbouring channels. Input [C,H,W] -> the same shape.

    With `alpha_over_n` the coefficient is alpha/size, as in the 2012 program and everywhere since; the paper's
    formula has no division. It sees its own column's channels, as in 2012; with ``sees="all"`` the windows cross
    the border between columns, and each column keeps its own channels of the result.
    """

    size: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    alpha_over_n: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.whole_numbers("size")
        self.finite_numbers("k", "alpha", "beta")
        self.expect("alpha_over_n", isinstance(self.alpha_over_n, bool), "True or False")

    @property
    def coefficient(self) -> float:
        """The factor on the sum of squares."""
        return self.alpha / self.size if self.alpha_over_n else self.alpha

    def output_shape(self, shape: Shape, columns: int) -> Shape:
        if len(shape) != 3:
            raise ConfigurationError(f"expected [C,H,W], got {shape}")
        return (shape[0] if self.sees == "own" else self.share(shape[0], columns), *shape[1:])

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        y, scale = backend.local_response_norm(x, size=self.size, k=self.k, alpha=self.coefficient, beta=self.beta)
        if self.sees == "own":
            return y, (x, y, scale)
        pieces = [x.shape[1] // context.columns] * context.columns
        return backend.split(y, pieces)[context.column], (x, y, scale)

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        if self.sees == "all":  # the other columns' channels of y were not passed on: their gradient is zero
            nothing = backend.zeros(dy.shape, dy.dtype.name, dy.device)
            dy = backend.concat([dy if column == context.column else nothing for column in range(context.columns)])
        dx = backend.local_response_norm_backward(dy, *saved, size=self.size, alpha=self.coefficient, beta=self.beta)
        return dx, {}
