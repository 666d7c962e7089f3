"""Kernels that only compiled steps use: fused ones against their parts, and arrays that are slices of wider ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from minialex.backend.rules import conv_size, pool_size
from minialex_numba.conv import direct
from minialex_numba.ops import max_pool2d, normalised_pool
from minialex_numba.ops.local_response_norm import Norm
from minialex_numba.runtime.layout import Rows
from minialex_numba.runtime.threads import threads as threads_for
from minialex_numba.runtime.tiles import lanes as lanes_of
from minialex_numba.runtime.tiles import up
from minialex_numpy import local_response_norm as reference_norm
from minialex_numpy import max_pool2d as reference_pool
from minialex_numpy.conv2d import conv2d, conv2d_backward

Array = np.ndarray[Any, Any]
DTYPES = ["float32", "float64"]
UNTOUCHED = -77.0


def last(x: Array) -> Array:
    """[N,C,H,W] as N H W C."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def sliced(x: Array, before: int, after: int) -> Rows:
    """x [N,C,H,W] as channels of a wider array N H W C."""
    N, C, H, W = x.shape
    wide = np.full((N, H, W, before + C + after), UNTOUCHED, x.dtype)
    wide[..., before : before + C] = last(x)
    return wide.reshape(-1), before, before + C + after


def room_for(shape: tuple[int, ...], dtype: str, before: int, after: int) -> Rows:
    return sliced(np.full(shape, UNTOUCHED, dtype), before, after)


def read(place: Rows, shape: tuple[int, ...]) -> Array:
    """What a slice holds, as [N,C,H,W]; nothing beside it may have been written."""
    N, C, H, W = shape
    flat, first, ld = place
    wide = flat.reshape(N, H, W, ld)
    beside = np.delete(wide, np.s_[first : first + C], axis=3)
    assert (beside == UNTOUCHED).all(), "written beside the slice"
    return np.ascontiguousarray(wide[..., first : first + C].transpose(0, 3, 1, 2))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("C", "H", "W", "window", "stride", "ceil", "parts"),
    [
        (5, 9, 11, 3, 2, True, 1),  # places side by side in a vector, the last row of them not full
        (17, 8, 7, 3, 2, True, 3),
        (33, 7, 40, 2, 2, False, 2),
        (3, 6, 5, 3, 1, True, 4),
        (8, 10, 70, 3, 4, True, 2),
        (16, 6, 6, 3, 2, True, 1),
        (20, 5, 5, 1, 1, True, 5),
        (1, 5, 9, 3, 2, True, 1),
    ],
)
def test_normalised_pooling_agrees_with_its_parts(
    C: int, H: int, W: int, window: int, stride: int, ceil: bool, parts: int, relu: bool, dtype: str
) -> None:
    threads, N = threads_for(3), 2
    P, Q = (pool_size(n, window, stride, ceil) for n in (H, W))
    random = np.random.default_rng(C)
    x = np.maximum(random.standard_normal((N, C, H, W)), 0 if relu else -9).astype(dtype)
    dy = random.standard_normal((N, C, P, Q)).astype(dtype)
    rule = Norm(5, 2.0, 0.3, 0.75)
    norm = tuple(rule.of(dtype))
    near: dict[str, Any] = {"rtol": 8 * np.finfo(dtype).eps, "atol": 0.0}
    windows = tuple(max_pool2d.windows_of(x.shape, dy.shape, window, stride))
    exact = x.astype(np.float64)
    numbers: dict[str, Any] = {"size": 5, "alpha": float(norm[2]), "beta": 0.75}
    y, scale = reference_norm.local_response_norm(exact, k=2.0, **numbers)

    source = sliced(x, 3, 2)
    pooled, winners = room_for(dy.shape, dtype, 1, 4), np.zeros(dy.size, max_pool2d.winner_dtype(window))
    own = up(window * W * C, 16)
    threads.run(
        normalised_pool.forward_kernel, N * parts, parts, source, windows, norm, pooled, winners,
        np.full(3 * own, np.nan, dtype), own,
    )  # fmt: skip
    largest = reference_pool.max_pool2d(y, size=window, stride=stride, ceil=ceil)
    np.testing.assert_allclose(read(pooled, dy.shape), largest, **near)

    n, p, q, c = np.indices((N, P, Q, C))
    row, column = np.divmod(winners.reshape(N, P, Q, C).astype(int), window)
    chosen = n, c, p * stride + row, q * stride + column
    np.testing.assert_allclose(y[chosen], last(largest), **near)
    slopes = np.zeros_like(y)
    np.add.at(slopes, chosen, last(dy))
    expected = reference_norm.local_response_norm_backward(slopes, exact, y, scale, **numbers)
    found, pitch = room_for(x.shape, dtype, 0, 3), up(C, lanes_of(dtype))
    threads.run(
        normalised_pool.backward_kernel, N * H, sliced(dy, 2, 0), winners, source, relu, windows, norm, found,
        np.full(3 * W * pitch, np.nan, dtype), pitch,
    )  # fmt: skip
    dx = read(found, x.shape)
    near["atol"] = 20 * np.finfo(dtype).eps * float(np.abs(slopes).max())
    np.testing.assert_allclose(dx, np.where(x > 0, expected, 0) if relu else expected, **near)
    assert dx.any()


CONVOLUTIONS = [  # C, K of each column, R, stride, padding, H, W
    (3, (7,), 5, 2, ((0, 3), (1, 2)), 13, 11),
    (5, (6, 6), 3, 1, ((1, 1), (1, 1)), 7, 6),
    (9, (17, 17), 3, 2, ((0, 0), (2, 1)), 8, 9),
    (16, (40,), 1, 1, ((0, 0), (0, 0)), 5, 5),
    (2, (5, 5, 5), 4, 3, ((2, 2), (3, 3)), 10, 12),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_direct_convolutions_of_slices_and_joined_columns(case: Any, dtype: str) -> None:
    C, columns, R, stride, padding, H, W = case
    threads, N, K = threads_for(3), 3, sum(columns)
    P, Q = conv_size(H, R, stride, padding[0]), conv_size(W, R, stride, padding[1])
    random = np.random.default_rng(K)
    x, dy = random.standard_normal((N, C, H, W)), random.standard_normal((N, K, P, Q))
    ws, b = [random.standard_normal((k, C, R, R)) for k in columns], random.standard_normal(K)
    like = random.standard_normal(x.shape)
    x, dy, b, like, *ws = (array.astype(dtype) for array in (x, dy, b, like, *ws))
    wide_arrays = [array.astype(np.float64) for array in (x, np.concatenate(ws), b, dy)]
    exact = conv2d(*wide_arrays[:3], stride=stride, padding=padding)
    exact_dx, exact_dw, exact_db = conv2d_backward(
        wide_arrays[3], *wide_arrays[:2], stride=stride, padding=padding, need_dx=True
    )
    assert exact_dx is not None
    near = {"rtol": 0, "atol": 200 * np.finfo(dtype).eps * max(1, float(np.abs(exact_dw).max()) ** 0.5)}

    source, sizes = sliced(x, 4, 1), direct.geometry(x.shape, exact.shape, (R, R), stride, padding)
    for relu in (False, True):
        engine = direct.Convolution(threads, sizes, np.dtype(dtype))
        engine.use(np.full(engine.weights, np.nan, dtype), np.full(engine.work, np.nan, dtype))
        engine.pack(ws, turned=False)
        bias = np.concatenate([b, np.full(engine.nothing.size - K, np.nan, dtype)])
        y = room_for(exact.shape, dtype, 2, 3)
        engine.run(source, bias, relu, y)
        np.testing.assert_allclose(read(y, exact.shape), np.maximum(exact, 0) if relu else exact, **near)

    slopes = sliced(dy, 1, 5)
    for mask in (None, sliced(like, 0, 2)):
        engine = direct.Convolution(threads, sizes.of_input_gradient, np.dtype(dtype))
        engine.use(np.full(engine.weights, np.nan, dtype), np.full(engine.work, np.nan, dtype))
        engine.pack(ws, turned=True)
        dx = room_for(x.shape, dtype, 5, 0)
        engine.run(slopes, engine.nothing, False, dx, mask=mask)
        np.testing.assert_allclose(read(dx, x.shape), exact_dx * (like > 0) if mask else exact_dx, **near)

    gradient = direct.WeightGradient(threads, sizes, np.dtype(dtype))
    gradient.use(np.full(up(gradient.room, 16), np.nan, dtype))
    dws, dbs = [np.full(w.size, np.nan, dtype) for w in ws], [np.full(k, np.nan, dtype) for k in columns]
    gradient.run(slopes, source, dws, dbs)
    np.testing.assert_allclose(np.concatenate(dws).reshape(exact_dw.shape), exact_dw, **near)
    np.testing.assert_allclose(np.concatenate(dbs), exact_db, **near)
