"""How far Winograd convolutions may be from the exact ones: a bound of their own, derived like those in `bounds`.

A tile of m × m outputs of an r × r kernel is y = Aᵀ[Σ_c (G g Gᵀ) ⊙ (Bᵀ d B)] A. Every entry of G g Gᵀ is two sums of
r terms, one within the other, with rounded coefficients: its error is at most γ(2(r + 1)) · |G| |g| |Gᵀ|; that of
Bᵀ d B, with n = m + r − 1, at most γ(2(n + 1)) · |Bᵀ| |d| |B|. The products are C terms added up, γ(C); the last
transform adds γ(2(n + 1)). Roundings compound, so

    |error| ≤ γ(2(r + 1) + 4(n + 1) + C) · |Aᵀ| [Σ_c (|G| |g| |Gᵀ|) ⊙ (|Bᵀ| |d| |B|)] |A|.

The sum of absolute values belongs to a whole tile: unlike a plain sum's, an output's error may be large relative to the
output and its own products where another number of its tile is large. That is why a backend's `conv2d`, which is
held to the plain sum's bound, cannot be Winograd's, and a compiled step may.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.arrays import Padding
from minialex.conformance.bounds import UNIT_ROUNDOFF, Arithmetic

Float64 = NDArray[np.float64]


def bound(
    x: NDArray[Any],
    w: NDArray[Any],
    padding: Padding,
    transforms: tuple[Float64, Float64, Float64],
    dtype: str = "float32",
    tiles_added: int = 0,
) -> Float64:
    """The largest error of each output of a convolution at stride 1 that is computed in tiles.

    Args:
        x: [N,C,H,W]
        w: [K,C,r,r]
        padding: as in `Backend.conv2d`
        transforms: Bᵀ [n,n], G [n,r] and Aᵀ [m,n]
        dtype: dtype of the computation
        tiles_added: for the gradient of the weights, the number of tiles whose products are summed

    Returns:
        [N,K,P,Q], to which underflow may add some of the smallest numbers

        Source: the model is that of `minialex.conformance.bounds`; the algorithm is Lavin and Gray's (CVPR 2016).
    """
    B, G, A = (np.abs(matrix) for matrix in transforms)
    (m, n), r = A.shape, G.shape[1]
    N, C, H, W = x.shape
    (above, below), (left, right) = padding
    P, Q = H + above + below - r + 1, W + left + right - r + 1
    down, across = -(-P // m), -(-Q // m)
    rows, columns = down * m + r - 1, across * m + r - 1
    image = np.zeros((N, C, rows, columns))
    image[:, :, above : above + H, left : left + W] = np.abs(x)[:, :, : rows - above, : columns - left]
    tiles = np.lib.stride_tricks.sliding_window_view(image, (n, n), axis=(2, 3))[:, :, ::m, ::m]
    inputs = np.einsum("ia,ncpqab,jb->ncpqij", B, tiles, B, optimize=True)
    kernels = np.einsum("ia,kcab,jb->kcij", G, np.abs(w.astype(np.float64)), G, optimize=True)
    products = np.einsum("kcij,ncpqij->nkpqij", kernels, inputs, optimize=True)
    size = np.einsum("ai,nkpqij,bj->nkpaqb", A, products, A, optimize=True)
    whole = size.reshape(N, len(w), down * m, across * m)[:, :, :P, :Q]
    limits = np.finfo(dtype)
    numbers = Arithmetic(
        UNIT_ROUNDOFF[dtype] + UNIT_ROUNDOFF["float64"], float(limits.smallest_subnormal), float(limits.max)
    )
    limit: Float64 = numbers.gamma(2 * (r + 1) + 4 * (n + 1) + C + tiles_added) * whole
    return limit
