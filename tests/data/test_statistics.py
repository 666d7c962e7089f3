"""The mean image and the colour covariance against direct formulas, and their independence of blocks."""

import numpy as np
import pytest

from minialex.data import dataset as module
from minialex.data.dataset import ArraySplit, statistics_of
from minialex.data.statistics import Statistics
from minialex.errors import DataError


def part(count, size, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size))
    pixels[:, 1] = (pixels[:, 0] + pixels[:, 1]) // 2  # correlated channels
    return ArraySplit(pixels.astype(np.uint8), np.zeros(count, np.int64))


def test_against_the_direct_formulas():
    split = part(37, 6)
    found = statistics_of(split)
    images = split.images.astype(np.float64)
    pixels = images.transpose(1, 0, 2, 3).reshape(3, -1)
    assert found.mean.dtype == np.float32
    assert np.array_equal(found.mean, images.mean(axis=0).astype(np.float32))
    assert found.covariance == pytest.approx(np.cov(pixels, bias=True), rel=1e-12)
    assert found.covariance.dtype == np.float64
    values, vectors = found.eigenvalues, found.eigenvectors
    assert (np.diff(values) < 0).all()
    assert vectors @ np.diag(values) @ vectors.T == pytest.approx(found.covariance, rel=1e-9)
    assert (np.abs(vectors).max(axis=0) == vectors.max(axis=0)).all()


@pytest.mark.parametrize("block_bytes", [1, 1000, 3 * 36 * 7, 1 << 20])
def test_blocks_and_order_change_no_bit(monkeypatch, block_bytes):
    split = part(37, 6)
    expected = statistics_of(split)
    monkeypatch.setattr(module, "_BLOCK_BYTES", block_bytes)
    found = statistics_of(split)
    backwards = statistics_of(ArraySplit(split.images[::-1], split.labels))
    for other in (found, backwards):
        assert np.array_equal(other.mean, expected.mean)
        assert np.array_equal(other.covariance, expected.covariance)


def test_images_of_one_colour_have_no_variance():
    split = ArraySplit(np.full((5, 3, 4, 4), 201, np.uint8), np.zeros(5, np.int64))
    found = statistics_of(split)
    assert np.array_equal(found.covariance, np.zeros((3, 3)))
    assert np.array_equal(found.eigenvalues, np.zeros(3))
    assert (found.mean == 201).all()


def test_rounding_gives_no_negative_variance():
    direction = np.array([1.0, 2.0, 3.0])
    assert Statistics(np.zeros((3, 1, 1), np.float32), np.outer(direction, direction)).eigenvalues.min() >= 0


def test_no_images():
    with pytest.raises(DataError, match="no images"):
        statistics_of(ArraySplit(np.zeros((0, 3, 4, 4), np.uint8), np.zeros(0, np.int64)))


def test_principal_components_are_computed_once(monkeypatch):
    statistics, calls, eigh = Statistics(np.zeros((3, 1, 1), np.float32), np.diag([3.0, 1.0, 2.0])), [], np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: calls.append(1) or eigh(matrix))
    for _ in range(3):
        assert statistics.eigenvalues.tolist() == [3, 2, 1]
        assert statistics.eigenvectors.shape == (3, 3)
    assert len(calls) == 1, "every step of training asks for them"
