"""A network's learned arrays: their initial values, and joining and splitting the columns' parts of a layer."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.backend.program import ArrayName
from minialex.errors import ConfigurationError
from minialex.network.layers.layer import Shape
from minialex.network.network import Network

_CHUNK = 1 << 18  # initial values drawn at a time


def split_name(name: str) -> tuple[str, str]:
    """The layer and the array in a state dictionary's name: ``("conv1", "weight")`` for ``"conv1.weight"``."""
    layer, _, array = name.rpartition(".")
    return layer, array


def initial_parameters(
    network: Network, columns: int, seed: int, dtype: str = "float32", *, layers: Collection[str] | None = None
) -> dict[ArrayName, NDArray[np.floating]]:
    """The weights and biases that training begins with: N(constant, std²), drawn by name, seed and element.

    Args:
        layers: draw only theirs

    Returns:
        Arrays of `dtype` by name, as in `Network.parameters`. A column's piece has the same numbers as that part of the
        whole layer's array.
    """
    arrays: dict[ArrayName, NDArray[np.floating]] = {}
    for name, parameter in network.parameters(columns).items():
        if layers is not None and name.layer not in layers:
            continue
        flat = np.full(math.prod(parameter.shape), parameter.constant, dtype)
        if parameter.std:
            purpose = philox.purpose(f"init/{name.whole}")
            odd = parameter.first_element % 2  # normal numbers come in pairs
            for begin in range(0, flat.size, _CHUNK):
                end = min(begin + _CHUNK, flat.size)
                stream = philox.Stream(seed, purpose, first_element=parameter.first_element + begin - odd)
                flat[begin:end] += parameter.std * philox.normal(stream, 1, end - begin + odd)[0, odd:]
        arrays[name] = flat.reshape(parameter.shape)
    return arrays


def join_columns(arrays: Mapping[ArrayName, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Join the columns' parts into whole layers' arrays, ``"conv1.weight"``, in the order of the columns (axis 0).

    This is the form of checkpoints and exports, the same as for grouped convolutions elsewhere.
    """
    pieces: dict[str, list[NDArray[Any]]] = {}
    for name, array in arrays.items():
        pieces.setdefault(name.whole, []).append(array)
    return {name: parts[0] if len(parts) == 1 else np.concatenate(parts) for name, parts in pieces.items()}


def whole_shapes(network: Network, columns: int) -> dict[str, Shape]:
    """The shape of every whole layer's array, by name, as in a checkpoint of this network."""
    shapes: dict[str, Shape] = {}
    for name, parameter in network.parameters(columns).items():
        rows = shapes[name.whole][0] if name.whole in shapes else 0
        shapes[name.whole] = (rows + parameter.shape[0], *parameter.shape[1:])
    return shapes


def split_columns(network: Network, columns: int, arrays: Mapping[str, NDArray[Any]]) -> dict[ArrayName, NDArray[Any]]:
    """The inverse of `join_columns`.

    Raises:
        ConfigurationError: If an array is missing or has another shape than in `whole_shapes`: compiled steps would
            read and write memory beside it.
    """
    for whole, shape in whole_shapes(network, columns).items():
        found = arrays[whole].shape if whole in arrays else "none"
        if found != shape:
            raise ConfigurationError(f"{network.name} needs {whole} of shape {shape}, and was given {found}")
    begin = dict.fromkeys(arrays, 0)
    pieces = {}
    for name, parameter in network.parameters(columns).items():
        first = begin[name.whole]
        begin[name.whole] = first + parameter.shape[0]
        pieces[name] = arrays[name.whole][first : begin[name.whole]]
    return pieces
