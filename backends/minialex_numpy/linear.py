"""The fully connected layer, paper section 3.5: a matrix product and a bias. N images, D inputs, K outputs."""

from __future__ import annotations

from minialex_numpy.floats import Floats


def linear(x: Floats, w: Floats, b: Floats) -> Floats:
    """y[n,k] = b[k] + Σ_d w[k,d] · x[n,d]."""
    return x @ w.T + b


def linear_backward(dy: Floats, x: Floats, w: Floats, *, need_dx: bool) -> tuple[Floats | None, Floats, Floats]:
    """dx = dy w;  dw = dyᵀ x;  db = Σ_n dy[n]."""
    return dy @ w if need_dx else None, dy.T @ x, dy.sum(axis=0)
