"""Nearest neighbours: exact against distances counted out one by one, the library's against exact."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from minialex.errors import ConfigurationError, DataError
from minialex.look import neighbours as module
from minialex.look.features import Features, Manifest
from minialex.look.neighbours import FaissIndex, feature_layer, nearest, pixel_ranks
from minialex.network import models, variants
from minialex.network.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, SpatialResponseNorm
from minialex.network.network import Network
from minialex.recipe.fields import NetworkFields


def counted_out(values: np.ndarray, queries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    values, queries = (a.reshape(len(a), -1).astype(np.float64) for a in (values, queries))
    distances = np.array([[np.linalg.norm(row - query) for row in values] for query in queries])
    order = np.argsort(distances, axis=1, kind="stable")[:, :count]
    return order, np.take_along_axis(distances, order, axis=1)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4)])
@pytest.mark.parametrize("block", [1, 500, 1 << 20])
def test_nearest_is_exact_however_it_is_cut(monkeypatch, shape, block: int) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    values, queries = rng.normal(size=(100, *shape)).astype(np.float32), rng.normal(size=(5, *shape)).astype(np.float32)
    told: list[int] = []
    found = nearest(values, queries, 6, told.append)
    images, distances = counted_out(values, queries, 6)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)
    assert told[-1] == 100


def test_far_from_the_origin_small_distances_are_still_told_apart() -> None:
    """‖x‖² + ‖q‖² − 2xq loses them: the last word is with the differences."""
    rng = np.random.default_rng(1)
    values = (1e4 + 1e-2 * rng.normal(size=(64, 128))).astype(np.float32)
    found = nearest(values, values[:4], 6)
    images, distances = counted_out(values, values[:4], 6)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_allclose(found.distances, distances, rtol=1e-12)
    assert (found.distances[:, 0] == 0).all()


def test_of_equals_the_first_comes_first() -> None:
    values = np.repeat(np.arange(40.0, dtype=np.float32), 3)[:, None]  # 0 0 0 1 1 1 …
    found = nearest(values, np.array([[10.0]], np.float32), 5)
    assert found.images.tolist() == [[30, 31, 32, 27, 28]]
    assert found.distances.tolist() == [[0, 0, 0, 1, 1]]


def test_more_than_there_are_gives_all() -> None:
    assert nearest(np.eye(3, dtype=np.float32), np.zeros((2, 3), np.float32), 9).images.shape == (2, 3)


@pytest.mark.parametrize(("width", "count"), [(4, 1), (3, 0)])
def test_what_does_not_fit_is_refused(width: int, count: int) -> None:
    with pytest.raises(ConfigurationError, match="neighbours: cannot find"):
        nearest(np.eye(3, dtype=np.float32), np.zeros((1, width), np.float32), count)


def test_the_last_hidden_layer() -> None:
    network = models.ALEXNET
    assert feature_layer(network) == "relu7"
    (stage,) = (s for s in network.stages(2) if s.layer.name == "relu7")
    assert stage.output[0] * stage.columns == 4096
    assert feature_layer(variants.build(NetworkFields(activation="tanh"))) == "tanh7"


def test_the_last_hidden_layer_of_one_s_own_networks() -> None:
    first, flat, last = Conv2d("conv1", 4, 5), Flatten("flatten"), Linear("fc2", 3)

    def named(*layers: Layer) -> str:
        return feature_layer(Network("mine", (3, 9, 9), layers))

    assert named(first, ReLU("relu1"), flat, last) == "relu1"
    assert named(first, ReLU("relu1"), MaxPool2d("pool1", 2, stride=2), flat, Dropout("drop", 0.5), last) == "pool1"
    assert named(first, ReLU("relu1"), flat, Linear("fc1", 8), SpatialResponseNorm("own"), last) == "own"
    for layers in ((flat, last), (Dropout("drop", 0.5), flat, last)):
        with pytest.raises(ConfigurationError, match="network 'mine' has no hidden layer"):
            named(*layers)


def features_in(folder: Path, values: np.ndarray, network: str = "n") -> Features:
    labels = np.zeros(len(values), np.int64)
    manifest = Manifest("npy", network, "relu7", values.shape[1:], "float32", "d", "train", len(values), "l", "c", ())
    return Features(folder, manifest, values, labels)


def clusters(N: int, D: int) -> np.ndarray:
    """Points like features: many loose groups in directions of unlike spread, none below zero."""
    rng = np.random.default_rng(2)
    centres = rng.normal(size=(200, D)) * np.linspace(3, 0.1, D)
    return np.maximum(centres[rng.integers(0, 200, N)] + 0.5 * rng.normal(size=(N, D)), 0).astype(np.float32)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Features, FaissIndex]:
    features = features_in(tmp_path_factory.mktemp("index"), clusters(10_000, 32))
    return features, FaissIndex.build(features)


def test_the_library_agrees_with_brute_force(large: tuple[Features, FaissIndex]) -> None:
    """On points that the index was not checked with; the recall that it states of itself is about right."""
    features, index = large
    queries = clusters(10_300, 32)[10_000:] + np.float32(0.01)
    exact, quick = nearest(features.values, queries, 6), index.nearest(queries, 6)
    same = [len(np.intersect1d(a, b)) / 6 for a, b in zip(exact.images, quick.images, strict=True)]
    assert np.mean(same) > 0.95
    assert index.recall == pytest.approx(np.mean(same), abs=0.05)
    both = exact.images == quick.images
    np.testing.assert_array_equal(exact.distances[both], quick.distances[both])
    assert (quick.distances >= exact.distances).all()


def test_with_all_lists_and_all_candidates_it_is_brute_force(large: tuple[Features, FaissIndex]) -> None:
    features, index = large
    queries = features.values[::1000]
    before, index.index.nprobe = index.index.nprobe, index.index.nlist
    try:
        found = index.nearest(queries, 6, effort=10_000)
    finally:
        index.index.nprobe = before
    exact = nearest(features.values, queries, 6)
    np.testing.assert_array_equal(found.images, exact.images)
    np.testing.assert_array_equal(found.distances, exact.distances)


def test_more_neighbours_than_candidates_are_found_all_the_same(large: tuple[Features, FaissIndex]) -> None:
    features, index = large
    queries = features.values[:1]
    found = index.nearest(queries, 9_000, effort=1)
    np.testing.assert_array_equal(found.images, nearest(features.values, queries, 9_000).images)


def test_an_index_is_read_again_unless_it_is_of_others(large: tuple[Features, FaissIndex]) -> None:
    features, index = large
    again = FaissIndex.open(features)
    assert again is not None
    assert again.recall == index.recall
    np.testing.assert_array_equal(
        again.nearest(features.values[:3]).images, index.nearest(features.values[:3]).images
    )  # fmt: skip
    assert FaissIndex.open(features_in(features.folder, features.values, network="another")) is None
    assert FaissIndex.open(features_in(features.folder, features.values[:-1])) is None


def test_a_damaged_index_is_said_to_be(large: tuple[Features, FaissIndex], tmp_path: Path) -> None:
    features, _ = large
    assert FaissIndex.open(features_in(tmp_path, features.values)) is None
    (tmp_path / "neighbours.json").write_bytes((features.folder / "neighbours.json").read_bytes())
    with pytest.raises(DataError, match="missing or damaged"):
        FaissIndex.open(features_in(tmp_path, features.values))
    (tmp_path / "neighbours.faiss").write_bytes((features.folder / "neighbours.faiss").read_bytes()[:1000])
    with pytest.raises(DataError, match="missing or damaged"):
        FaissIndex.open(features_in(tmp_path, features.values))


def test_small_sets_need_no_index(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave out --search"):
        FaissIndex.build(features_in(tmp_path, clusters(50, 8)))


def test_without_the_library_it_says_what_to_install(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ConfigurationError, match=r"pip install \"minialex\[look\]\""):
        FaissIndex.open(features_in(tmp_path, clusters(50, 8)))


def test_pixel_ranks_count_the_nearer_ones() -> None:
    flat = np.ones((3, 2, 2), np.uint8)
    queries = np.stack([0 * flat])
    others = np.stack([10 * flat, 20 * flat, 30 * flat, 40 * flat])
    near = np.stack([[5 * flat, 25 * flat, 200 * flat]])
    assert pixel_ranks(queries, near, others).tolist() == [[0, 0.5, 1]]


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    code = (
        "import minialex.cli.look.subject, minialex.cli.features, sys; "
        "print({'faiss', 'pyarrow', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
