"""Normalisation over neighbouring positions: in the 2012 program's second layer, not in the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.network.layers.layer import Context, Layer, Parameters


@dataclass(frozen=True)
class SpatialResponseNorm(Layer):
    """x / (k + α/size² Σ x²)^β over a square of `size` × `size` positions of the same channel. [C,H,W] -> the same."""

    size: int = 5
    k: float = 1.0
    alpha: float = 0.001
    beta: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        self.whole_numbers("size")
        self.finite_numbers("k", "alpha", "beta")

    @property
    def coefficient(self) -> float:
        """The factor on the sum of squares."""
        return self.alpha / self.size**2

    def window(self, axis: int) -> tuple[int, int, int]:
        return self.size, 1, self.size // 2

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        y, scale = backend.spatial_response_norm(x, size=self.size, k=self.k, alpha=self.coefficient, beta=self.beta)
        return y, (x, y, scale)

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        dx = backend.spatial_response_norm_backward(dy, *saved, size=self.size, alpha=self.coefficient, beta=self.beta)
        return dx, {}
