"""A network whose fully connected layers are divided by units (Krizhevsky 2014): convolutions in columns, then pieces.

The fully connected layers are a network of their own with the pieces as its columns: each reads all units of the
previous layer and computes its share. Whole layers' arrays are the undivided network's: pieces are consecutive rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.program import ArrayName
from minialex.errors import ConfigurationError
from minialex.network.layers import Dropout, Layer, Linear, Parameter, ReLU, Tanh
from minialex.network.network import Network
from minialex.network.parameters import split_columns

UNITWISE = (Linear, ReLU, Tanh, Dropout)
"""Layers whose pieces compute exactly what the same units of the whole layer would."""


@dataclass(frozen=True)
class Divided:
    """A network in two parts: convolutions, which every rank has, and fully connected layers in pieces.

    Attributes:
        below: all layers before the first fully connected one
        above: the fully connected layers, with one column per piece; the last layer may have padding units
        columns: number of columns of `below`
        pieces: number of pieces of `above`
        classes: units of the last layer without padding
    """

    below: Network
    above: Network
    columns: int
    pieces: int
    classes: int

    def parameters(self, own: range) -> dict[ArrayName, Parameter]:
        """All arrays of the convolutions, and those of some pieces of the fully connected layers."""
        above = self.above.parameters(self.pieces)
        return self.below.parameters(self.columns) | {name: p for name, p in above.items() if name.column in own}

    def full(self, name: ArrayName) -> bool:
        """Whether an array belongs to a fully connected layer."""
        return any(layer.name == name.layer for layer in self.above.layers)

    def split(self, own: range, arrays: Mapping[str, NDArray[Any]]) -> dict[ArrayName, NDArray[Any]]:
        """Split whole layers' arrays into columns and some of the pieces; padding units are zeros."""
        columns = {name.whole for name in self.below.parameters(self.columns)}
        found = split_columns(self.below, self.columns, {name: arrays[name] for name in columns})
        for name, parameter in self.above.parameters(self.pieces).items():
            if name.column in own:
                rows = parameter.shape[0]
                part = arrays[name.whole][name.column * rows : (name.column + 1) * rows]
                found[name] = np.pad(part, [(0, rows - len(part))] + [(0, 0)] * (part.ndim - 1))
        return found

    def rows(self, name: ArrayName) -> int:
        """Rows of a whole fully connected layer's array, without padding."""
        last = self.above.layers[-1].name == name.layer
        return self.classes if last else self.above.parameters(self.pieces)[name].shape[0] * self.pieces


@lru_cache(maxsize=16)
def divide(network: Network, columns: int, pieces: int) -> Divided:
    """Divide a network's fully connected layers into `pieces` pieces.

    Raises:
        ConfigurationError: If it has none, or they cannot be divided; the message begins with the layer's name.
    """
    stages = network.stages(columns)
    first = next((n for n, stage in enumerate(stages) if isinstance(stage.layer, Linear)), 0)
    if first == 0:
        raise ConfigurationError(f"network '{network.name}' has no full layers behind others: none can be divided")
    layers: list[Layer] = []
    for stage in stages[first:]:
        layer = stage.layer
        if type(layer) not in UNITWISE:
            raise ConfigurationError(
                f"layer '{layer.name}': a {type(layer).__name__} among the full layers cannot be divided over ranks: "
                "leave out --full-layers divided"
            )
        if isinstance(layer, Linear):
            if stage.sources > 1 and not stage.gathers:
                raise ConfigurationError(
                    f"layer '{layer.name}': it reads its own column alone and so cannot be divided over ranks: "
                    "give --columns 1, or leave out --full-layers divided"
                )
            if stage is stages[-1]:
                layer = replace(layer, features=-(-layer.features // pieces) * pieces)
            elif layer.features % pieces:
                raise ConfigurationError(
                    f"layer '{layer.name}': {layer.features} units cannot be divided over ranks in {pieces} pieces, "
                    "one per shard: give another --shards, or leave out --full-layers divided"
                )
            layer = replace(layer, sees="all")
        layers.append(replace(layer, on="each"))
    below = Network(network.name, network.input_shape, network.layers[:first])
    inputs = stages[first].seen
    above = Network(network.name, inputs, tuple(layers))
    above.stages(pieces)  # raises at once if something does not fit
    last = stages[-1]
    return Divided(below, above, columns, pieces, last.output[0] * last.pieces)
