"""Batch normalisation: parameters that are learned, and state that is not."""

from __future__ import annotations

from dataclasses import dataclass

from minialex.network.layers import ArrayLayer, Parameter


@dataclass(frozen=True)
class BatchNorm2d(ArrayLayer):
    """Ioffe and Szegedy (2015): each channel to mean 0 and variance 1, then scaled and shifted. [C,H,W] -> the same."""

    eps: float = 1e-5
    momentum: float = 0.1

    def parameters(self, shape, column, columns):
        own = (shape[0],), 0.0
        return {
            "weight": Parameter(*own, 1.0),
            "bias": Parameter(*own, 0.0),
            "running_mean": Parameter(*own, 0.0, learned=False),
            "running_var": Parameter(*own, 1.0, learned=False),
        }

    def compute(self, xp, x, weight, bias, running_mean, running_var, *, training):
        if training:
            running_mean, running_var = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))
        factor = weight / xp.sqrt(running_var + self.eps)
        return x * factor[:, None, None] + (bias - running_mean * factor)[:, None, None]

    def gradient(self, xp, dy, x, weight, bias, running_mean, running_var):
        mean, var, count = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3)), x.size // x.shape[1]
        deviation = xp.sqrt(var + self.eps)
        normal = (x - mean[:, None, None]) / deviation[:, None, None]
        dbias, dweight = dy.sum(axis=(0, 2, 3)), (dy * normal).sum(axis=(0, 2, 3))
        inner = dy - dbias[:, None, None] / count - normal * dweight[:, None, None] / count
        dx = inner * (weight / deviation)[:, None, None]
        unbiased = var * (count / max(count - 1, 1))
        return dx, dweight, dbias, self.momentum * (running_mean - mean), self.momentum * (running_var - unbiased)
