"""A network's learned arrays: their initial values, and columns' pieces joined into whole layers' arrays and split."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.network.layers.layer import Shape
from minialex.network.network import Network

_CHUNK = 1 << 18  # initial values drawn at a time


def initial_parameters(
    network: Network, columns: int, seed: int, dtype: str = "float32", *, layers: Collection[str] | None = None
) -> dict[str, NDArray[np.floating]]:
    """The weights and biases that training begins with: N(constant, std²), drawn by name, seed and element.

    Args:
        layers: draw only theirs

    Returns:
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


def split_name(name: str) -> tuple[str, str]:
    """The layer and the array of a whole layer's array: ``("conv1", "weight")`` of ``"conv1.weight"``."""
    layer, _, array = name.rpartition(".")
    return layer, array


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
