"""Winograd's convolutions against exact ones in float64, within the bound that is derived for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minialex.conformance import winograd as kit
from minialex_numba.conv import winograd, winograd_matrices
from minialex_numba.conv.direct import gather, geometry
from minialex_numba.runtime.layout import channels_first, channels_last, empty
from minialex_numba.runtime.threads import Threads
from minialex_numba.runtime.threads import threads as threads_for
from minialex_numba.runtime.tiles import up
from minialex_numpy.conv2d import conv2d, conv2d_backward

Array = np.ndarray[Any, Any]


def transforms(m: int, r: int) -> tuple[Array, Array, Array]:
    inputs, kernels, outputs = (np.array(matrix, np.float64) for matrix in winograd_matrices.matrices(m, r))
    return inputs, kernels, outputs


@pytest.mark.parametrize(("m", "r"), [*((m, r) for r, m in winograd.TILES.items()), *winograd.TILES.items()])
def test_the_matrices_make_a_convolution(m: int, r: int) -> None:
    inputs, kernels, outputs = transforms(m, r)
    random = np.random.default_rng(m)
    d, g = random.standard_normal(m + r - 1), random.standard_normal(r)
    np.testing.assert_allclose(outputs @ ((kernels @ g) * (inputs @ d)), np.correlate(d, g), rtol=1e-12)


def forward(threads: Threads, x: Array, w: Array, b: Array, padding: Any, turned: bool = False) -> Array:
    N, _, H, W = x.shape
    r = w.shape[2]
    K = w.shape[1] if turned else len(w)
    P, Q = (n + sum(pad) - r + 1 for n, pad in zip((H, W), padding, strict=True))
    sizes = geometry(x.shape, (N, K, P, Q), (r, r), 1, padding)
    engine = winograd.Convolution(threads, sizes, x.dtype)
    engine.use(empty(engine.weights, x.dtype), np.full(engine.work, np.nan, x.dtype))
    engine.pack([w], turned=turned)
    bias = np.zeros_like(engine.nothing)
    bias[:K] = b
    y = np.full(N * P * Q * K, np.nan, x.dtype), 0, K
    engine.run(channels_last(threads, x), bias, False, y)
    return channels_first(threads, y, (N, K, P, Q))


sizes = st.tuples(
    st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.integers(3, 14), st.integers(3, 14),
    st.sampled_from([3, 5]), st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]),
)  # fmt: skip


def draw(sizes: Any) -> tuple[Array, Array, Array, Any, int, str]:
    N, C, K, H, W, r, seed, dtype = sizes
    random = np.random.default_rng(seed)
    padding = tuple(tuple(int(n) for n in random.integers(0, r, 2)) for _ in range(2))
    magnitude = 10.0 ** random.integers(-4, 5, (N, C, max(H, r), max(W, r)))  # tiles of large and small numbers
    x = (magnitude * random.standard_normal(magnitude.shape)).astype(dtype)
    w = random.standard_normal((K, C, r, r)).astype(dtype)
    b = random.standard_normal(K).astype(dtype)
    return x, w, b, padding, r, dtype


@settings(max_examples=25, deadline=None, derandomize=True)
@given(sizes)
def test_forward_and_the_gradient_of_the_input(sizes: Any) -> None:
    x, w, b, padding, r, dtype = draw(sizes)
    exact = conv2d(x.astype(np.float64), w.astype(np.float64), b.astype(np.float64), stride=1, padding=padding)
    limit = kit.bound(x, w, padding, transforms(winograd.TILES[r], r), dtype)
    u = np.finfo(dtype).eps
    y = forward(threads_for(2), x, w, b, padding)
    assert np.all(np.abs(y - exact) <= limit + u * (np.abs(exact) + np.abs(b)[:, None, None]))

    dy = exact.astype(dtype)
    dx = conv2d_backward(
        dy.astype(np.float64), x.astype(np.float64), w.astype(np.float64), stride=1, padding=padding, need_dx=True
    )[0]
    assert dx is not None
    turned = np.ascontiguousarray(w[:, :, ::-1, ::-1].swapaxes(0, 1))
    around = tuple((r - 1 - above, r - 1 - below) for above, below in padding)
    limit = kit.bound(dy, turned, around, transforms(winograd.TILES[r], r), dtype)
    found = forward(threads_for(2), dy, w, np.zeros(x.shape[1], dtype), around, turned=True)
    assert np.all(np.abs(found - dx) <= limit)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(sizes)
def test_the_gradient_of_the_weights(sizes: Any) -> None:
    x, w, _, padding, r, dtype = draw(sizes)
    N, C, H, W = x.shape
    K = len(w)
    P, Q = (n + sum(pad) - r + 1 for n, pad in zip((H, W), padding, strict=True))
    dy = np.random.default_rng(1).standard_normal((N, K, P, Q)).astype(dtype)
    _, exact, of_biases = conv2d_backward(
        dy.astype(np.float64), x.astype(np.float64), w.astype(np.float64), stride=1, padding=padding, need_dx=False
    )
    engine = winograd.WeightGradient(threads_for(2), geometry(x.shape, dy.shape, (r, r), 1, padding), x.dtype)
    engine.use(np.full(up(engine.room, 16), np.nan, dtype))
    dw, db = np.full(w.size, np.nan, dtype), np.full(K, np.nan, dtype)
    engine.run(channels_last(threads_for(2), dy), channels_last(threads_for(2), x), [dw], [db])

    # a tile of dy is the kernel: the gradient is the sum over tiles of convolutions of x by tiles of dy
    m = winograd.TILES[r]
    limit = np.zeros((K, C, r, r))
    down, across = -(-P // m), -(-Q // m)
    (above, _), (left, _) = padding
    padded = np.zeros((N, C, down * m + r - 1, across * m + r - 1))
    padded[:, :, above : above + H, left : left + W] = x[:, :, : padded.shape[2] - above, : padded.shape[3] - left]
    slopes = np.zeros((N, K, down * m, across * m))
    slopes[:, :, :P, :Q] = dy
    for p in range(down):
        for q in range(across):
            image = padded[:, :, p * m : p * m + m + r - 1, q * m : q * m + m + r - 1].swapaxes(0, 1)
            tile = slopes[:, :, p * m : (p + 1) * m, q * m : (q + 1) * m].swapaxes(0, 1)
            limit += kit.bound(image, tile, ((0, 0), (0, 0)), transforms(r, m), dtype, down * across).swapaxes(0, 1)
    assert np.all(np.abs(dw.reshape(w.shape) - exact) <= limit)
    reach = np.abs(dy).astype(np.float64).sum(axis=(0, 2, 3))
    assert np.all(np.abs(db - of_biases) <= N * P * Q * np.finfo(dtype).eps * reach)


def test_one_kernel_serves_all_sizes() -> None:
    """One for each size, or each literal that `gather` is called with, would be compiled for seconds more."""
    random = np.random.default_rng(4)
    for r in winograd.TILES:
        x, w = random.standard_normal((1, 8, 9, 9), np.float32), random.standard_normal((8, 8, r, r), np.float32)
        forward(threads_for(1), x, w, np.zeros(8, np.float32), ((1, 1), (1, 1)))
    for kernel in (winograd.forward_kernel, gather):
        dtypes = {str(kinds).partition("float")[2][:2] for kinds in kernel.signatures}
        assert len(kernel.signatures) == len(dtypes), kernel.signatures
    assert winograd.forward_kernel.signatures  # `gather` is in it, and has none of its own if that came from the disk
