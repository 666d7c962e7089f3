"""Kernels of maps with the channels last whose threads share the work in blocks, beside NumPy, on awkward sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from minialex_cuda import CudaBackend
from minialex_cuda.ops import conv2d_last
from minialex_cuda.ops.augment import augment
from minialex_cuda.ops.words import BFLOAT16, FLOAT32, STORAGES, Storage
from minialex_cuda.runtime.fake import FakeRuntime

SIZES = [(1, 4), (3, 8), (37, 48), (2500, 48), (130, 192), (9, 384), (150, 400), (20000, 4), (0, 8)]
"""Places and channels: fewer than a block's, more than all blocks' at once, and channels in pieces of a warp."""


@pytest.fixture(scope="module")
def backend() -> CudaBackend:
    return CudaBackend(runtime=FakeRuntime())


def kept(x: NDArray[Any], storage: Storage) -> NDArray[Any]:
    """Numbers as a storage keeps them; those that are given need no rounding."""
    return x if storage is FLOAT32 else (x.view(np.uint32) >> 16).astype(np.uint16)


def numbers(x: NDArray[Any]) -> NDArray[Any]:
    """The other way."""
    return x if x.dtype == np.float32 else (x.astype(np.uint32) << 16).view(np.float32)


def small(random: np.random.Generator, *shape: int) -> NDArray[Any]:
    """Whole numbers, of which any order of sums gives the same."""
    return random.integers(-8, 9, shape).astype(np.float32)


@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: s.name)
@pytest.mark.parametrize(("places", "channels"), SIZES)
def test_gradient_of_a_bias(backend: CudaBackend, places: int, channels: int, storage: Storage) -> None:
    random, on = np.random.default_rng(places), backend.place("cuda:0")
    dy, y = small(random, places, channels), small(random, places, channels)
    there, relu = (backend.to_device(kept(a, storage).reshape(places, 1, 1, channels), "cuda:0") for a in (dy, y))
    for mask in (None, relu):
        db = on.empty((channels,), np.float32)
        out = backend.to_numpy(conv2d_last.bias_gradient(on, there, mask, db)).reshape(dy.shape)
        expected = dy if mask is None else dy * (y > 0)
        assert np.array_equal(numbers(out), expected)
        assert np.array_equal(backend.to_numpy(db), expected.sum(axis=0))


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("storage", STORAGES, ids=lambda s: s.name)
@pytest.mark.parametrize(("places", "channels"), SIZES)
def test_bias(backend: CudaBackend, places: int, channels: int, storage: Storage, rectify: bool) -> None:
    """In place, and from float32 to places further on, which leaves the others."""
    random, on = np.random.default_rng(places), backend.place("cuda:0")
    x, b = small(random, places, channels), small(random, channels)
    expected = np.maximum(x + b, 0) if rectify else x + b
    there = backend.to_device(kept(x, storage).reshape(places, 1, 1, channels), "cuda:0")
    bias = backend.to_device(b, "cuda:0")
    conv2d_last.add_bias(on, there, bias, there, 0, places, rectify)
    assert np.array_equal(numbers(backend.to_numpy(there)).reshape(x.shape), expected)
    wide = backend.to_device(np.full((places + 3, 1, 1, channels), 7, storage.dtype), "cuda:0")
    flat = backend.to_device(x, "cuda:0")
    conv2d_last.add_bias(on, flat, bias, wide, 2, places, rectify)
    found = backend.to_numpy(wide).reshape(-1, channels)
    assert np.array_equal(numbers(found[2:-1]), expected)
    assert (found[:2] == 7).all()
    assert (found[-1] == 7).all()


@pytest.mark.parametrize("shape", [(5, 3, 11, 11), (4, 8, 3, 3), (2, 272, 5, 5), (3, 1, 1, 300)])
@pytest.mark.parametrize("stride", [0, 1, 4])
def test_gradients_of_weights_come_back_in_order(backend: CudaBackend, shape: tuple[int, ...], stride: int) -> None:
    """As they are, and deepened by some stride; what fills up channels is zero."""
    on = backend.place("cuda:0")
    w = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    deepened = stride > 0
    if not deepened and shape[1] % 4:
        return
    for storage in STORAGES:
        given = w % 256 if storage is BFLOAT16 else w
        last = conv2d_last.kernels_last(on, backend.to_device(given, "cuda:0"), storage, stride, deepened)
        back = on.empty(shape, np.float32)
        conv2d_last.kernels_first(on, last, back, stride, deepened)
        assert np.array_equal(backend.to_numpy(back), given)
        assert numbers(backend.to_numpy(last)).sum(dtype=np.float64) == given.sum(dtype=np.float64)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize(
    ("channels", "stride", "crop", "kernel"), [(3, 4, 21, 11), (3, 4, 290, 11), (2, 3, 10, 5), (1, 2, 9, 3)]
)
def test_augmentation_straight_to_what_a_convolution_reads(
    precision: str, follows: bool, channels: int, stride: int, crop: int, kernel: int
) -> None:
    """Reflected images and others, places in one block of a row and in several, channels that fill up with zeros."""
    random, backend = np.random.default_rng(crop), CudaBackend(runtime=FakeRuntime(), precision=precision)
    on, H, W = backend.place("cuda:0"), crop + 3, crop + 5
    images = random.integers(0, 256, (3, channels, H, W)).astype(np.uint8)
    mean = random.random((channels, H, W) if follows else (channels, crop, crop)).astype(np.float32)
    given = (
        images, mean, random.random((3, channels)).astype(np.float32), np.array([0, 3, 1], np.int32),
        np.array([5, 0, 2], np.int32), np.array([0, 1, 1], np.uint8),
    )  # fmt: skip
    there = [backend.to_device(a, "cuda:0") for a in given]
    padding = ((0, 3), (2, 1))
    numbers: dict[str, Any] = {"crop": crop, "factor": 0.5, "mean_follows": follows}
    asked: dict[str, Any] = {"stride": stride, "padding": padding, "kernel": (kernel, kernel)}
    expected = conv2d_last.space_to_depth(on, augment(on, *there, **numbers), **asked)
    found = conv2d_last.augment_deep(on, *there, **numbers, **asked)
    assert np.array_equal(backend.to_numpy(found), backend.to_numpy(expected))
