"""The matrices of Winograd's minimal filtering: m outputs of an r-tap filter with m + r − 1 multiplications.

y = Aᵀ[(G g) ⊙ (Bᵀ d)], for d of m + r − 1 numbers and g of r. Both are polynomials, represented by their values at
m + r − 2 points and at infinity, where a product of polynomials is a product of numbers. Bᵀ depends only on m + r.
The points are small powers of two and their negatives, so the transforms are nearly exact; rows are scaled by powers
of two, which is exact, to keep all factors near 1.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016; the points after Barabasz et
al., "Error analysis and improving the accuracy of Winograd convolution for deep neural networks", ACM TOMS 2020.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

Matrix = list[list[Fraction]]

POINTS = {
    4: ("0", "1", "-1"),
    6: ("0", "1", "-1", "2", "-1/2"),
    7: ("0", "1", "-1", "2", "-1/2", "1/2"),
    8: ("0", "1", "-1", "2", "-2", "1/2", "-1/2"),
}
"""The points besides infinity, by m + r − 1."""

INPUT, KERNEL, OUTPUT = 0, 1, 2
"""Indices of Bᵀ, G and Aᵀ in the result of `matrices`."""


def _times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """Multiply a polynomial by (x − root); coefficients start with the constant."""
    shifted = [Fraction(0), *polynomial]
    return [high - root * low for high, low in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


def _product(roots: list[Fraction]) -> list[Fraction]:
    polynomial = [Fraction(1)]
    for root in roots:
        polynomial = _times(polynomial, root)
    return polynomial


def _power_of_two_near(row: list[Fraction]) -> Fraction:
    return Fraction(2) ** round(math.log2(max(abs(value) for value in row)))


@lru_cache(maxsize=32)
def matrices(m: int, r: int) -> tuple[Matrix, Matrix, Matrix]:
    """Bᵀ [n, n], G [n, r] and Aᵀ [m, n] for n = m + r − 1."""
    n = m + r - 1
    points = [Fraction(point) for point in POINTS[n]]
    infinity = n - 1
    inputs: Matrix = []
    kernels: Matrix = []
    outputs: Matrix = [[point**i for point in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    for i, point in enumerate(points):
        others = points[:i] + points[i + 1 :]
        weight = math.prod((point - other for other in others), start=Fraction(1))
        inputs.append([*_product(others), Fraction(0)])
        kernels.append([point**j / weight for j in range(r)])
    inputs.append(_product(points))
    kernels.append([Fraction(int(j == r - 1)) for j in range(r)])
    for i in range(infinity + 1):
        of_input, of_kernel = _power_of_two_near(inputs[i]), _power_of_two_near(kernels[i])
        inputs[i] = [value / of_input for value in inputs[i]]
        kernels[i] = [value / of_kernel for value in kernels[i]]
        for row in outputs:
            row[i] *= of_input * of_kernel
    return inputs, kernels, outputs
