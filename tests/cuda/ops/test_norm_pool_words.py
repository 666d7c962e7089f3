"""Pooling in words beside the reference, where numbers are equal, infinite or none, and where windows reach beyond."""

from __future__ import annotations

import numpy as np
import pytest

from minialex_cuda import CudaBackend
from minialex_cuda.ops.norm_pool_words import max_pool2d_backward, norm_pool
from minialex_cuda.runtime.fake import FakeRuntime
from minialex_numpy import NumpyBackend


@pytest.mark.parametrize(("H", "W"), [(25, 7), (6, 4)])
def test_pooling_as_the_reference_does(H: int, W: int) -> None:
    random = np.random.default_rng(0)
    x = np.round(2 * random.standard_normal((2, 8, H, W))).astype(np.float32)  # many are equal
    x[0, 1] = -np.inf
    x[0, 2, 4:] = -np.inf
    x[0, 3, 2, 2] = np.inf
    x[1, 4, 3, 3] = np.nan
    reference, backend = NumpyBackend(), CudaBackend(runtime=FakeRuntime())
    first, on = reference.devices[0], backend.place("cuda:0")
    y = reference.max_pool2d(reference.to_device(x, first), size=3, stride=2, ceil=True)
    wanted = reference.to_numpy(y)
    dy = random.integers(1, 100, wanted.shape).astype(np.float32)
    there = backend.to_device(np.ascontiguousarray(x.transpose(0, 2, 3, 1)), "cuda:0")
    found, where = norm_pool(on, there, size=3, stride=2, ceil=True)
    np.testing.assert_array_equal(backend.to_numpy(found).transpose(0, 3, 1, 2), wanted)
    assert backend.to_numpy(where).max() < 9
    back = backend.to_device(np.ascontiguousarray(dy.transpose(0, 2, 3, 1)), "cuda:0")
    dx = backend.to_numpy(max_pool2d_backward(on, back, there, where, rectify=False)).transpose(0, 3, 1, 2)
    expected = reference.to_numpy(
        reference.max_pool2d_backward(
            reference.to_device(dy, first), reference.to_device(x, first), y, size=3, stride=2, ceil=True, ties="first"
        )
    )
    known = ~np.isnan(x).any(axis=(2, 3))  # which of the places beside a NaN is the largest is nobody's business
    np.testing.assert_array_equal(dx[known], expected[known])
