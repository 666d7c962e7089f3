"""Augmentation against the protocol's formula, pixel by pixel, in plain loops."""

import numpy as np
import pytest

from minialex_numpy.augment import augment


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mean_follows", [True, False])
@pytest.mark.parametrize(("H", "W", "crop"), [(7, 9, 4), (5, 5, 5), (6, 8, 1)])
def test_augment(H, W, crop, mean_follows, dtype):
    random = np.random.default_rng(0)
    N, C = 6, 3
    images = random.integers(0, 256, (N, C, H, W)).astype(np.uint8)
    mean = random.uniform(0, 255, (C, H, W) if mean_follows else (C, crop, crop)).astype(dtype)
    shift = (20 * random.standard_normal((N, C))).astype(dtype)
    top, left = (random.integers(0, n - crop + 1, N).astype(np.int32) for n in (H, W))
    flip = np.array([0, 1, 0, 1, 1, 0], np.uint8)
    y = augment(images, mean, shift, top, left, flip, crop=crop, factor=0.5, mean_follows=mean_follows)
    assert y.dtype == dtype
    for n in range(N):
        for c in range(C):
            for i in range(crop):
                for j in range(crop):
                    row, column = top[n] + i, left[n] + (crop - 1 - j if flip[n] else j)
                    taken = mean[c, row, column] if mean_follows else mean[c, i, j]
                    exact = 0.5 * (float(images[n, c, row, column]) + float(shift[n, c]) - float(taken))
                    assert y[n, c, i, j] == pytest.approx(exact, rel=0, abs=1e-4 if dtype == "float32" else 1e-12)


def test_a_reflection_keeps_the_colours_and_turns_the_columns():
    images = np.arange(2 * 3 * 4 * 4, dtype=np.uint8).reshape(2, 3, 4, 4)
    zero, nowhere = np.zeros((2, 3)), np.zeros(2, np.int32)
    mean = np.zeros((3, 4, 4))
    plain = augment(images, mean, zero, nowhere, nowhere, np.zeros(2, np.uint8), crop=4, factor=1.0, mean_follows=True)
    turned = augment(images, mean, zero, nowhere, nowhere, np.ones(2, np.uint8), crop=4, factor=1.0, mean_follows=True)
    assert np.array_equal(plain, images)
    assert np.array_equal(turned, images[..., ::-1])


def test_of_the_whole_image_nothing_is_left_when_the_mean_is_the_image():
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 6, 6)).astype(np.uint8)
    for flip in (0, 1):
        y = augment(
            images, images[0].astype(np.float64), np.zeros((1, 3)), np.array([2], np.int32), np.array([1], np.int32),
            np.array([flip], np.uint8), crop=4, factor=3.0, mean_follows=True,
        )  # fmt: skip
        assert not y.any()
