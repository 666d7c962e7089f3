"""A network: layers in a row, and what each of them is when the row is laid out in columns."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.errors import ConfigurationError, nearest
from minialex.layers import Layer, Parameter
from minialex.layers.layer import Shape

_CHUNK = 1 << 18  # initial values drawn at a time


@dataclass(frozen=True)
class Stage:
    """A layer in its place.

    Attributes
    ----------
    layer : the layer
    columns : how many columns compute it (1 for a layer on the first column)
    sources : how many columns hold pieces of its input
    gathers : whether each of its columns needs the pieces of all sources
    seen : shape, without N, that a column's piece of the layer sees
    output : shape that it gives
    trained_before : whether a layer before it has parameters, so that its input's gradient is needed
    whole : whether each of its columns gives the whole output, since nothing has divided it among them yet
    """

    layer: Layer
    columns: int
    sources: int
    gathers: bool
    seen: Shape
    output: Shape
    trained_before: bool
    whole: bool

    @property
    def values_received(self) -> int:
        """Values that one column of it receives from other columns, per image; its gradient sends as many back."""
        return math.prod(self.seen) * (self.sources - 1) // self.sources if self.gathers else 0


@dataclass(frozen=True)
class Network:
    """Layers in a row, on images of a given shape [C,H,W]. How many columns it has is said when it is placed."""

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]

    def stages(self, columns: int) -> tuple[Stage, ...]:
        """Every layer in its place, for so many columns.

        Raises
        ------
        ConfigurationError
            If a layer does not fit; the message begins with its name.
        """
        return _stages(self, columns)

    def parameters(self, columns: int) -> dict[str, Parameter]:
        """All learned arrays by name, ``"conv1.weight:0"`` being column 0's piece of conv1's weights."""
        return {
            f"{stage.layer.name}.{name}:{column}": parameter
            for stage in self.stages(columns)
            for column in range(stage.columns)
            for name, parameter in stage.layer.parameters(stage.seen, column, stage.columns).items()
        }

    def layer(self, name: str) -> Layer:
        """The layer of that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = [layer.name for layer in self.layers]
        raise ConfigurationError(
            f"network '{self.name}' has no layer '{name}'; it has {', '.join(known)}.{nearest(name, known)}"
        )

    def exchanged_bytes(self, columns: int, batch_size: int, itemsize: int = 4) -> dict[str, int]:
        """Bytes that cross between columns in one forward pass, by the layer that reads them; the same come back."""
        return {
            stage.layer.name: stage.values_received * stage.columns * batch_size * itemsize
            for stage in self.stages(columns)
            if stage.gathers
        }


@lru_cache(maxsize=64)
def _stages(network: Network, columns: int) -> tuple[Stage, ...]:
    if columns < 1:
        raise ConfigurationError(f"a network needs at least one column, got {columns}")
    names = [layer.name for layer in network.layers]
    for name in names:
        if names.count(name) > 1 or ":" in name or not name:
            raise ConfigurationError(
                f"network '{network.name}': layer names must be unique and without ':', got {names}"
            )
    stages: list[Stage] = []
    shape, sources, whole, trained = network.input_shape, columns, True, False
    for layer in network.layers:
        computing = columns if layer.on == "each" else 1
        gathers = not whole and layer.sees == "all" and sources > 1
        if computing != sources and not gathers and not whole:
            raise ConfigurationError(
                f"layer '{layer.name}': it is computed in {computing} of {sources} columns, so it must see 'all'"
            )
        seen = (shape[0] * sources, *shape[1:]) if gathers else shape
        try:
            shape = layer.output_shape(seen, computing)
        except ConfigurationError as error:
            text = str(error)
            raise ConfigurationError(text if text.startswith("layer ") else f"layer '{layer.name}': {text}") from None
        whole = whole and not layer.divides
        stages.append(Stage(layer, computing, sources, gathers, seen, shape, trained, whole))
        trained = trained or bool(layer.parameters(seen, 0, computing))
        sources = computing
    return tuple(stages)


def initial_parameters(
    network: Network, columns: int, seed: int, dtype: str = "float32", *, layers: Collection[str] | None = None
) -> dict[str, NDArray[np.floating]]:
    """The weights and biases that training begins with: N(constant, std²), drawn by name, seed and element.

    Parameters
    ----------
    layers : draw only theirs

    Returns
    -------
    name -> array of `dtype`, as in `Network.parameters`. A column's piece holds the same numbers as that part of
    the whole layer's array would.
    """
    arrays: dict[str, NDArray[np.floating]] = {}
    for name, parameter in network.parameters(columns).items():
        if layers is not None and name.partition(".")[0] not in layers:
            continue
        flat = np.full(math.prod(parameter.shape), parameter.constant, dtype)
        if parameter.std:
            stream = philox.purpose(f"init/{name.partition(':')[0]}")
            odd = parameter.first_element % 2  # normal numbers come in pairs
            for begin in range(0, flat.size, _CHUNK):
                end = min(begin + _CHUNK, flat.size)
                place = philox.Stream(seed, stream, first_element=parameter.first_element + begin - odd)
                flat[begin:end] += parameter.std * philox.normal(place, 1, end - begin + odd)[0, odd:]
        arrays[name] = flat.reshape(parameter.shape)
    return arrays


def join_columns(arrays: Mapping[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    """Whole layers' arrays, ``"conv1.weight"``, from the columns' pieces, ``"conv1.weight:0"``, … (axis 0).

    This is the form of checkpoints and exports: what grouped convolutions have everywhere else.
    """
    pieces: dict[str, list[NDArray[np.generic]]] = {}
    for name, array in arrays.items():
        pieces.setdefault(name.partition(":")[0], []).append(array)
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in pieces.items()}


def whole_shapes(network: Network, columns: int) -> dict[str, Shape]:
    """The shape of every whole layer's array, by name: what a checkpoint of this network holds."""
    shapes: dict[str, Shape] = {}
    for name, parameter in network.parameters(columns).items():
        whole = name.partition(":")[0]
        before = shapes.get(whole)
        shapes[whole] = (before[0] + parameter.shape[0], *before[1:]) if before else parameter.shape
    return shapes


def split_columns(
    network: Network, columns: int, arrays: Mapping[str, NDArray[np.generic]]
) -> dict[str, NDArray[np.generic]]:
    """The inverse of `join_columns`; arrays must have the shapes of `whole_shapes`."""
    begin: dict[str, int] = {}
    pieces = {}
    for name, parameter in network.parameters(columns).items():
        whole = name.partition(":")[0]
        first = begin.get(whole, 0)
        begin[whole] = first + parameter.shape[0]
        pieces[name] = arrays[whole][first : begin[whole]]
    return pieces
