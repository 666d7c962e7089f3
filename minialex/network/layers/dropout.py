"""Dropout (paper, section 4.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.network.layers.layer import Context, Layer, Parameters, is_finite


@dataclass(frozen=True)
class Dropout(Layer):
    """In training each unit is set to zero with probability `rate`. Any shape -> the same.

    ``mode="paper"`` scales by 1 − rate when not training, as in 2012; ``"inverted"`` scales by 1/(1 − rate) in
    training instead. The mask is a function of the layer's name, the seed, the step, the image and the unit's
    index in the whole layer: neither columns nor devices change it.
    """

    rate: float = 0.5
    mode: Literal["paper", "inverted"] = "paper"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.expect("rate", is_finite(self.rate) and 0 <= self.rate < 1, "a number from 0 and below 1")
        self.one_of("mode", "paper", "inverted")

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        if not context.training:
            return (backend.scale(x, 1 - self.rate) if self.mode == "paper" else x), None
        stream = context.stream(f"dropout/{self.name}", context.column * math.prod(x.shape[1:]))
        return backend.dropout(x, rate=self.rate, factor=self.factor, stream=stream)

    @property
    def factor(self) -> float:
        """The factor on the units that are kept, in training."""
        return 1.0 if self.mode == "paper" else 1 / (1 - self.rate)

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        if not context.training:
            return (backend.scale(dy, 1 - self.rate) if self.mode == "paper" else dy), {}
        return backend.dropout_backward(dy, saved, factor=self.factor), {}
