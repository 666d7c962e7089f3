"""Leaky rectified linear units: an operation that is registered, and a layer that calls it."""

from __future__ import annotations

from dataclasses import dataclass

from minialex.backend.operations import register
from minialex.network.layers import Layer


def leaky_relu(xp, x, *, slope):
    """y = x where x > 0, else slope · x."""
    return xp.where(x > 0, x, slope * x)


def leaky_relu_backward(xp, dy, x, *, slope):
    """dx = dy where x > 0, else slope · dy."""
    return xp.where(x > 0, dy, slope * dy)


EXAMPLES = [([(2, 3)], {"slope": 0.1}), ([(2, 3, 4, 5)], {"slope": 0.3}), ([(0, 3)], {"slope": 0.0})]
LEAKY_RELU = register("leaky_relu", leaky_relu, leaky_relu_backward, examples=EXAMPLES)


@dataclass(frozen=True)
class LeakyReLU(Layer):
    """Maas, Hannun and Ng (2013): units that are never quite off. Any shape -> the same."""

    slope: float = 0.01

    def forward(self, backend, parameters, x, context):
        return LEAKY_RELU(backend, x, slope=self.slope), x

    def backward(self, backend, parameters, saved, dy, context):
        return LEAKY_RELU.gradient(backend, dy, saved, slope=self.slope), {}
