"""Saturating units, with which section 3.1 of the paper compares ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.network.layers.layer import Context, Layer, Parameters


@dataclass(frozen=True)
class Tanh(Layer):
    """y = tanh x."""

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        y = backend.tanh(x)
        return y, y

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        return backend.tanh_backward(dy, saved), {}
