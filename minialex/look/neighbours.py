"""Nearest neighbours in a layer's feature space, by Euclidean distance: figure 4 of the paper, right.

`nearest` reads all features once and is exact. `FaissIndex` reads a fraction of them: a library finds candidates in a
compressed copy, which are ordered by their exact distances. Its recall is measured when the index is built.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.errors import ConfigurationError, DataError
from minialex.look.features import Features
from minialex.network.layers import Dropout, Flatten
from minialex.network.network import Network
from minialex.storage import atomic

Float = NDArray[np.floating[Any]]

BLOCK_BYTES = 64 << 20  # of float64 features in memory at a time
SPARE = 16  # extra candidates kept until their exact distances decide
FEWEST_FOR_FAISS = 10_000  # images; below this, reading all of them is fast
CANDIDATES = 100  # exact distances computed per requested neighbour
CHECKED = 100  # images whose neighbours are found both ways to measure recall
CHECKED_NEIGHBOURS = 6


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of each of Q images among others.

    Attributes:
        images: int64 [Q,k], indices into the split of the features, nearest first
        distances: float64 [Q,k], Euclidean
    """

    images: NDArray[np.int64]
    distances: NDArray[np.float64]


def feature_layer(network: Network) -> str:
    """The layer whose output is the last hidden activation: the one before the last layer, the classes.

    In the paper's network it is ``relu7``, 4096 numbers. Dropout after it would only halve all distances, and
    flattening changes nothing.

    Raises:
        ConfigurationError: The network has no hidden layer.
    """
    hidden = list(network.layers[:-1])
    while hidden and isinstance(hidden[-1], Dropout | Flatten):
        hidden.pop()
    if not hidden:
        raise ConfigurationError(f"network '{network.name}' has no hidden layer; `minialex features --layer` names any")
    return hidden[-1].name


def nearest(
    features: Float, queries: Float, count: int = 6, progress: Callable[[int], None] = lambda done: None
) -> Neighbours:
    """Find the nearest rows of `features` for each query, exactly, in one pass over them.

    Of rows at equal distances, the first comes first. Memory does not grow with N.

    Args:
        features: float [N,…], may be memory-mapped; rows are flattened
        queries: float [Q,…] of the same row shape
        count: number k of neighbours to find; fewer if there are fewer rows
        progress: called with the number of rows done

    Raises:
        ConfigurationError: If the shapes do not match or `count` is not positive.
    """
    N, Q = len(features), len(queries)
    if count < 1 or features.shape[1:] != queries.shape[1:]:
        raise ConfigurationError(
            f"neighbours: cannot find {count} among {features.shape} for {queries.shape}: rows must have one shape"
        )
    count = min(count, N)
    width = math.prod(features.shape[1:])
    points = queries.reshape(Q, width).astype(np.float64)
    rows = max(1, BLOCK_BYTES // (8 * width))
    best = np.empty((Q, 0))
    candidates = np.empty((Q, 0), np.int64)
    for begin in range(0, N, rows):
        block = np.asarray(features[begin : begin + rows], np.float64).reshape(-1, width)
        squares = np.einsum("nd,nd->n", block, block) - 2 * points @ block.T  # ‖x − q‖² − ‖q‖², enough for the order
        here = np.broadcast_to(np.arange(begin, begin + len(block)), squares.shape)
        best, candidates = np.concatenate([best, squares], axis=1), np.concatenate([candidates, here], axis=1)
        if best.shape[1] > count + SPARE:
            keep = np.argpartition(best, count + SPARE - 1, axis=1)[:, : count + SPARE]
            best, candidates = np.take_along_axis(best, keep, axis=1), np.take_along_axis(candidates, keep, axis=1)
        progress(begin + len(block))
    return _ordered(features, points, candidates, count)


def _ordered(features: Float, points: NDArray[np.float64], candidates: NDArray[np.int64], count: int) -> Neighbours:
    """The nearest of each query's candidates [Q,c], by distances computed from the differences."""
    images = np.empty((len(points), count), np.int64)
    distances = np.empty((len(points), count))
    for n, (point, rows) in enumerate(zip(points, np.sort(candidates, axis=1), strict=True)):
        differences = np.asarray(features[rows], np.float64).reshape(len(rows), -1) - point
        exact = np.sqrt((differences**2).sum(axis=1))
        order = np.argsort(exact, kind="stable")[:count]
        images[n], distances[n] = rows[order], exact[order]
    return Neighbours(images, distances)


@dataclass
class FaissIndex:
    """A compressed copy of features in which a library finds candidates fast (inverted lists, product quantisation).

    Attributes:
        features: the features that it indexes
        index: the library's object
        recall: share of the exact 6 nearest neighbours, of 100 of the images, that it found when it was built
    """

    features: Features
    index: Any
    recall: float

    @classmethod
    def build(cls, features: Features, progress: Callable[[int], None] = lambda done: None) -> FaissIndex:
        """Build the index and write it beside the features, as ``neighbours.faiss`` and ``neighbours.json``.

        Raises:
            ConfigurationError: If there are too few features to need one, or faiss is not installed.
            ResourceError: If the disk is full.
        """
        faiss = _faiss()
        values = features.values
        N, width = len(values), math.prod(values.shape[1:])
        if N < FEWEST_FOR_FAISS:
            raise ConfigurationError(
                f"{features.folder} holds {N:,} images: faiss needs {FEWEST_FOR_FAISS:,} or more; leave out --search"
            )
        lists = round(math.sqrt(N))
        parts = max(n for n in range(1, min(512, max(1, width // 4)) + 1) if width % n == 0)  # of a row, 4 bits each
        index = faiss.index_factory(width, f"IVF{lists},PQ{parts}x4fs")
        stream = philox.Stream(0, philox.purpose("look/neighbours"))
        order = philox.permutation(stream, N)
        index.train(_rows(values, np.sort(order[: max(50 * lists, FEWEST_FOR_FAISS)])))
        block = max(1, BLOCK_BYTES // (4 * width))
        for begin in range(0, N, block):
            index.add(_rows(values, slice(begin, begin + block)))
            progress(min(begin + block, N))
        index.nprobe = max(1, lists // 8)
        built = cls(features, index, math.nan)
        checked = np.sort(order[:CHECKED])
        queries = np.asarray(values[checked])
        exact = nearest(values, queries, CHECKED_NEIGHBOURS).images
        quick = built.nearest(queries, CHECKED_NEIGHBOURS).images
        built.recall = float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(exact, quick, strict=True)]))
        atomic.write_bytes(features.folder / "neighbours.faiss", faiss.serialize_index(index).tobytes())
        about = {"network": features.manifest.network, "images": N, "lists": lists, "parts": parts}
        atomic.write_json(features.folder / "neighbours.json", {**about, "recall": built.recall})
        return built

    @classmethod
    def open(cls, features: Features) -> FaissIndex | None:
        """Read the index stored beside the features; None if there is none, or it belongs to other features.

        Raises:
            DataError: If it is damaged.
            ConfigurationError: If faiss is not installed.
        """
        faiss = _faiss()
        path = features.folder / "neighbours.json"
        if not path.exists():
            return None
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
            if about["network"] != features.manifest.network or about["images"] != len(features.values):
                return None
            index = faiss.read_index(str(features.folder / "neighbours.faiss"))
            return cls(features, index, float(about["recall"]))
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise DataError(
                f"{path.with_suffix('.faiss')} is missing or damaged ({error}): remove {path}; it is made again"
            ) from None

    def nearest(self, queries: Float, count: int = 6, effort: int = CANDIDATES) -> Neighbours:
        """Like the function `nearest`, but may miss neighbours; the distances are exact.

        Args:
            effort: number of candidates per requested neighbour whose exact distances are computed
        """
        values = self.features.values
        count = min(count, len(values))
        points = queries.reshape(len(queries), -1)
        _, rows = self.index.search(np.ascontiguousarray(points, np.float32), min(effort * count, len(values)))
        parts = []
        for query, row in zip(points.astype(np.float64), rows, strict=True):
            candidates = row[row >= 0]
            if len(candidates) < count:  # the lists searched held fewer: search everything
                parts.append(nearest(values, query.reshape(1, *values.shape[1:]), count))
            else:
                parts.append(_ordered(values, query[None], candidates[None], count))
        return Neighbours(
            np.concatenate([part.images for part in parts]), np.concatenate([part.distances for part in parts])
        )


def _rows(values: Float, chosen: Any) -> NDArray[np.float32]:
    return np.ascontiguousarray(values[chosen], np.float32).reshape(-1, math.prod(values.shape[1:]))


def _faiss() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # about its wrapper's types
            import faiss
    except ImportError:
        raise ConfigurationError(
            'this search needs faiss, which is not installed: pip install "minialex[look]", or leave out --search'
        ) from None
    return faiss


def pixel_ranks(
    queries: NDArray[np.uint8], neighbours: NDArray[np.uint8], others: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """How close neighbours are as images: the share of other images that are closer to the query in pixels, [Q,k].

    The paper: neighbours in the features "are generally not close in L2 to the query images" at the pixel level. 0
    means closer than all others; a randomly chosen image would have 0.5 on average.

    Args:
        queries: uint8 [Q,3,S,S]
        neighbours: uint8 [Q,k,3,S,S]
        others: uint8 [M,3,S,S]
    """

    def squares(images: NDArray[np.uint8], query: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.array([((image - query) ** 2).sum(dtype=np.float64) for image in images])

    shares = np.empty(neighbours.shape[:2])
    for n, query in enumerate(queries.astype(np.float32)):
        far = squares(others, query)
        shares[n] = [(far < near).mean() for near in squares(neighbours[n], query)]
    return shares
