"""The functions that the site's live parts call in the reader's browser: the reference backend, on plain numbers.

Every function takes numbers as they come from JavaScript (flat sequences and integers) and returns a dict of numbers
and flat float32 arrays with their shapes. Only NumPy is needed. Nothing here computes by itself: each function calls
the operations of ``minialex_numpy``, as a network does.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend import registry
from minialex.backend.program import ArrayName, flatten
from minialex.backend.protocol import Backend
from minialex.data.statistics import Statistics
from minialex.engine.columns import Executor
from minialex.engine.summary import summarise
from minialex.errors import CheckpointError, ConfigurationError, MinialexError
from minialex.network import variants
from minialex.network.layers import Context
from minialex.network.network import Network
from minialex.network.parameters import initial_parameters, whole_shapes
from minialex.recipe.fields import Recipe
from minialex.recipe.toml import load, parse

Floats = NDArray[np.float32]
Numbers = Any
"""A flat sequence of numbers, or a buffer of them."""
Tell = Callable[[dict[str, Any]], None]

COLUMNS = 2
MEAN = "data.mean"
DEVICE = "cpu:0"


def _reference() -> Backend:
    return registry.load("numpy")


def apply(operation: str, *arrays: NDArray[Any], **options: Any) -> list[NDArray[Any]]:
    """An operation of the reference on NumPy arrays; its results as NumPy arrays."""
    backend = _reference()
    made = getattr(backend, operation)(*(backend.to_device(array, DEVICE) for array in arrays), **options)
    return [backend.to_numpy(array) for array in flatten(made)]


def _picture(values: Numbers, channels: int, height: int, width: int) -> Floats:
    """A flat sequence as [1,C,H,W]."""
    flat = np.asarray(values, np.float32)
    if flat.size != channels * height * width or not flat.size:
        raise ConfigurationError(f"expected {channels} x {height} x {width} numbers, got {flat.size}")
    return flat.reshape(1, channels, height, width)


def _out(x: NDArray[Any]) -> dict[str, Any]:
    return {"shape": list(x.shape), "data": np.ascontiguousarray(x, np.float32).ravel()}


def convolution(image: Numbers, height: int, width: int, kernel: Numbers, stride: int, padding: int) -> dict[str, Any]:
    """One grey picture, one square kernel: `conv2d` with equal padding on all sides."""
    x = _picture(image, 1, height, width)
    side = round(len(kernel) ** 0.5)
    w = np.asarray(kernel, np.float32).reshape(1, 1, side, side)
    around = ((padding, padding), (padding, padding))
    return _out(apply("conv2d", x, w, np.zeros(1, np.float32), stride=stride, padding=around)[0])


def relu(image: Numbers, height: int, width: int, kernel: Numbers, bias: float) -> dict[str, Any]:
    """A grey picture through `conv2d` with a bias, then `relu`; and the share of neurons whose output is 0."""
    x = _picture(image, 1, height, width)
    side = round(len(kernel) ** 0.5)
    w = np.asarray(kernel, np.float32).reshape(1, 1, side, side)
    around = ((side // 2, side // 2), (side // 2, side // 2))
    (before,) = apply("conv2d", x, w, np.asarray([bias], np.float32), stride=1, padding=around)
    (after,) = apply("relu", before)
    return {**_out(after), "before": _out(before), "silent": float(np.mean(after == 0))}


def normalisation(values: Numbers, size: int, k: float, alpha: float, beta: float) -> dict[str, Any]:
    """`local_response_norm` of one place's channels."""
    x = np.asarray(values, np.float32).reshape(1, -1, 1, 1)
    y, scale = apply("local_response_norm", x, size=size, k=k, alpha=alpha, beta=beta)
    return {**_out(y), "scale": _out(scale)}


def pooling(image: Numbers, height: int, width: int, size: int, stride: int) -> dict[str, Any]:
    """`max_pool2d` of a grey picture."""
    return _out(apply("max_pool2d", _picture(image, 1, height, width), size=size, stride=stride, ceil=False)[0])


def colour(image: Numbers, height: int, width: int, draws: Numbers) -> dict[str, Any]:
    """Section 4.1's colour shift: the picture's own principal components, times given draws; then `augment`.

    `draws` are the three numbers that training draws from N(0, 0.1²). The result is on the scale of the pixels.
    """
    x = _picture(image, 3, height, width)
    side = min(height, width)
    zeros = np.zeros((3, side, side), np.float32)
    own = Statistics(zeros, np.cov(x.reshape(3, -1).astype(np.float64), bias=True))
    parts = own.eigenvectors * (np.asarray(draws, np.float64) * np.sqrt(own.eigenvalues))
    shift = parts.sum(axis=1).astype(np.float32)
    zero = np.zeros(1, np.int32)
    (y,) = apply(
        "augment",
        x.astype(np.uint8), zeros, shift[None], zero, zero, np.zeros(1, np.uint8),
        crop=side, factor=1.0, mean_follows=False,
    )  # fmt: skip
    return {**_out(y), "shift": shift.tolist()}


class Arrays(Mapping[ArrayName, Any]):
    """A network's arrays on the reference backend, each drawn or read when a layer asks for it; counts the seconds."""

    def __init__(self, network: Network, columns: int, piece: Callable[[ArrayName], Floats]) -> None:
        self.names, self.piece, self.seconds = tuple(network.parameters(columns)), piece, 0.0

    def __getitem__(self, name: ArrayName) -> Any:
        begin = time.perf_counter()
        array = self.piece(name)
        self.seconds += time.perf_counter() - begin
        return _reference().to_device(array, DEVICE)

    def __iter__(self) -> Iterator[ArrayName]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def initial(network: Network, seed: int) -> Arrays:
    """A network's initial weights; a layer's are freed at the next layer."""
    held: dict[ArrayName, Any] = {}

    def piece(name: ArrayName) -> Any:
        if name not in held:
            held.clear()  # frees the old ones before the new ones are made
            held.update(initial_parameters(network, COLUMNS, seed, layers={name.layer}))
        return held[name]

    return Arrays(network, COLUMNS, piece)


class WeightsFile:
    """A minialex weights file whose pieces are read as layers ask for them; needs only NumPy.

    Raises:
        CheckpointError: If it is not a safetensors file with a minialex recipe, or its arrays do not match the recipe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= min(size - 8, 1 << 24):
                raise CheckpointError("this is not a .safetensors file")
            try:
                header = json.loads(file.read(length))
                metadata = header.pop("__metadata__", {})
                entries: dict[str, Any] = {
                    name: (str(e["dtype"]), tuple(map(int, e["shape"])), *map(int, e["data_offsets"]))
                    for name, e in header.items()
                }
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise CheckpointError("this is not a .safetensors file, or it is damaged") from None
        if "recipe" not in metadata:
            raise CheckpointError(
                "this .safetensors file has no minialex recipe: `minialex import FILE OUT.safetensors` makes one of it"
            )
        self.recipe: Recipe = parse(metadata["recipe"], "the file's recipe")
        self.titles: list[str] = json.loads(metadata.get("words", "[]")) or json.loads(
            metadata.get("class_names", "[]")
        )
        self.network = variants.build(self.recipe)
        self._begin, self._entries = 8 + length, entries
        S = self.recipe.image_size
        shapes = {**whole_shapes(self.network, self.recipe.columns), MEAN: (3, S, S)}
        for name, shape in shapes.items():
            dtype, found, first, end = entries.get(name, ("none", (), 0, 0))
            wanted = 4 * int(np.prod(shape))
            if self._begin + end > size:
                raise CheckpointError(
                    f"the file is cut short: {name} would end at {self._begin + end:,} of {size:,} bytes"
                )
            if dtype != "F32" or found != shape or end - first != wanted or first < 0:
                raise CheckpointError(f"array {name}: expected float32 {shape}, the file has {dtype} {found}")

    def array(self, name: str, row: int = 0, rows: int | None = None) -> Floats:
        """Rows of a whole layer's array."""
        _, shape, first, _ = self._entries[name]
        rows = shape[0] if rows is None else rows
        values = int(np.prod(shape[1:]))
        with self.path.open("rb") as file:
            file.seek(self._begin + first + 4 * row * values)
            data = file.read(4 * rows * values)
        return np.frombuffer(data, "<f4").reshape(rows, *shape[1:])

    def arrays(self) -> Arrays:
        """The weights of the network's columns."""
        columns = self.recipe.columns
        parameters = self.network.parameters(columns)

        def piece(name: ArrayName) -> Floats:
            rows = parameters[name].shape[0]
            return self.array(name.whole, name.column * rows, rows)

        return Arrays(self.network, columns, piece)


def _mosaic(piece: Floats) -> dict[str, Any]:
    """Up to 48 maps of a column side by side (or its neurons in rows), each scaled to 0 … 255."""
    x = piece[0]
    if x.ndim == 1:
        width = 64 if x.size >= 64 else x.size
        x = x[: x.size // width * width].reshape(1, -1, width)
    maps = x[:48]
    low, high = maps.min(axis=(1, 2), keepdims=True), maps.max(axis=(1, 2), keepdims=True)
    maps = (maps - low) / np.where(high > low, high - low, 1) * 255
    across = min(8, len(maps))
    maps = maps[: len(maps) // across * across]
    H, W = maps.shape[1:]
    grid = maps.reshape(-1, across, H, W).transpose(0, 2, 1, 3).reshape(-1, across * W)
    return {"height": grid.shape[0], "width": grid.shape[1], "data": grid.astype(np.uint8).ravel()}


def network(
    image: Numbers, size: int, tell: Tell, seed: int = 0, weights: str | None = None, whole: bool = True
) -> dict[str, Any]:
    """Run a square RGB picture through a network in two columns, layer by layer.

    Args:
        image: flat [3,size,size], 0 … 255
        size: the network's image size (see `wanted`)
        tell: called for every layer as soon as its output exists: name, shape, seconds, a mosaic of each column
        seed: seed of the initial weights, if no file is given
        weights: a minialex weights file; None draws the weights of the paper's network
        whole: whether to make the mosaics

    Returns:
        ``top``, the five most probable classes with their probabilities; ``seconds`` in total, ``weights_seconds`` of
        them for drawing or reading weights; ``parameters``, their number; ``logits``.

    Raises:
        CheckpointError, ConfigurationError: If the file or the picture's size is unsuitable.
    """
    begin = time.perf_counter()
    if weights is None:
        recipe, titles = load("alexnet-2012"), []
        net = variants.build(recipe)
        arrays = initial(net, seed)
        x = _picture(image, 3, size, size)
        mean = np.broadcast_to(x.mean(axis=(0, 2, 3), dtype=np.float64)[:, None, None], x.shape[1:])
    else:
        file = WeightsFile(Path(weights))
        recipe, titles, net, arrays, mean = file.recipe, file.titles, file.network, file.arrays(), file.array(MEAN)
    S, crop = recipe.image_size, recipe.crop
    columns = recipe.columns
    if size != S:
        raise ConfigurationError(f"the network takes pictures of {S} x {S}, got {size} x {size}")
    pixels = _picture(image, 3, S, S).clip(0, 255).astype(np.uint8)
    top = np.asarray([(S - crop) // 2], np.int32)
    backend = _reference()
    (prepared,) = apply(
        "augment",
        pixels, np.ascontiguousarray(mean, np.float32), np.zeros((1, 3), np.float32), top, top, np.zeros(1, np.uint8),
        crop=crop, factor=recipe.pixel_scale, mean_follows=True,
    )  # fmt: skip
    ready = backend.to_device(prepared, DEVICE)
    last, spent = time.perf_counter(), 0.0

    def heard(layer: str, pieces: Sequence[Any]) -> None:
        nonlocal last, spent
        now = time.perf_counter()
        of_weights, spent = arrays.seconds - spent, arrays.seconds
        tell(
            {
                "layer": layer,
                "shape": list(pieces[0].shape[1:]),
                "columns": len(pieces),
                "seconds": now - last - of_weights,
                "weights_seconds": of_weights,
                "pieces": [_mosaic(backend.to_numpy(piece)) for piece in pieces] if whole else [],
            }
        )
        last = time.perf_counter()

    executor = Executor(net, backend, (DEVICE,) * columns)
    outputs, _ = executor.forward(arrays, [ready] * columns, Context(training=False), heard)
    logits = outputs[0] if len(outputs) == 1 else backend.concat(outputs)
    logits = backend.to_numpy(logits)
    _, probs = apply("softmax_cross_entropy", logits, np.zeros(1, np.int64))
    order = np.argsort(-probs[0], kind="stable")[:5]
    return {
        "top": [[titles[i] if i < len(titles) else f"class {i}", float(probs[0, i])] for i in order],
        "seconds": time.perf_counter() - begin,
        "weights_seconds": arrays.seconds,
        "parameters": sum(int(np.prod(p.shape)) for p in net.parameters(columns).values()),
        "logits": np.ascontiguousarray(logits[0], np.float32),
    }


def layers(recipe: Recipe) -> list[dict[str, Any]]:
    """A recipe's network, layer by layer: its columns, what each reads, its parameters and the values exchanged."""
    return [
        {
            "layer": row.layer, "kind": row.kind, "columns": row.columns, "output": list(row.output),
            "reads": row.reads, "parameters": row.parameters, "multiply_adds": row.multiply_adds,
            "received": row.received,
        }
        for row in summarise(recipe).rows
    ]  # fmt: skip


def wanted(weights: str | None = None) -> dict[str, Any]:
    """The image size that a file's network (None: the paper's) needs, and its `layers`."""
    recipe = load("alexnet-2012") if weights is None else WeightsFile(Path(weights)).recipe
    return {"size": recipe.image_size, "layers": layers(recipe)}


CALLS: dict[str, Callable[..., dict[str, Any]]] = {
    "convolution": convolution, "relu": relu, "normalisation": normalisation, "pooling": pooling, "colour": colour,
    "network": network, "wanted": wanted,
}  # fmt: skip


def _plain(value: Any) -> Any:
    """JavaScript's typed arrays as Python buffers (Pyodide wraps them); everything else unchanged."""
    return value.to_py() if hasattr(value, "to_py") and not callable(value) else value


def call(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Call one of `CALLS`; errors are returned as ``{"error": one line}``."""
    try:
        return CALLS[name](**{key: _plain(value) for key, value in arguments.items()})
    except MinialexError as error:
        return {"error": str(error)}
    except MemoryError:
        return {"error": "the browser gave too little memory: close other pages, or use a smaller network"}
