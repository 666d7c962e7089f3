"""A network: a sequence of layers, and what each of them is when the sequence is laid out in columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from minialex.backend.program import ArrayName
from minialex.errors import ConfigurationError, nearest
from minialex.network.layers import Layer, Parameter
from minialex.network.layers.layer import Shape, blamed, is_whole


def _kind(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__} ({value!r:.40})"


def _columns(count: int) -> str:
    return f"{count} column{'s' if count > 1 else ''}"


@dataclass(frozen=True)
class Stage:
    """A layer at its position in the network.

    Attributes:
        layer: the layer
        columns: number of columns that compute it (1 for a layer on the first column)
        sources: number of columns that hold parts of its input
        gathers: whether each of its columns needs the parts of all sources
        seen: input shape, without N, of a column's part of the layer
        output: output shape of a column's part, without N
        trained_before: whether a layer before it has parameters, so that its input's gradient is needed
        divided: whether each column has a share of its output; the image, and anything not yet divided, is the
            same in all
    """

    layer: Layer
    columns: int
    sources: int
    gathers: bool
    seen: Shape
    output: Shape
    trained_before: bool
    divided: bool

    @property
    def pieces(self) -> int:
        """The number of different parts of its output, one per column."""
        return self.columns if self.divided else 1

    @property
    def values_received(self) -> int:
        """Values that one column of it receives from other columns, per image; its gradient sends as many back."""
        return math.prod(self.seen) * (self.sources - 1) // self.sources if self.gathers else 0


@dataclass(frozen=True)
class Network:
    """A sequence of layers for images of a given shape [C,H,W]. The number of columns is chosen when it is placed.

    The layers are a tuple; a list is converted into one.

    Raises:
        ConfigurationError: If the shape is invalid, or `layers` contains anything other than layers.
    """

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        for field in ("input_shape", "layers"):
            if isinstance(getattr(self, field), list):
                object.__setattr__(self, field, tuple(getattr(self, field)))  # networks are compared and hashed
        if not isinstance(self.name, str) or not self.name:
            raise ConfigurationError(f"a network's name must be a string, got {self.name!r}")
        shape, what = self.input_shape, f"network '{self.name}'"
        if not isinstance(shape, tuple) or not shape or not all(is_whole(n, 1) for n in shape):
            raise ConfigurationError(f"{what}: input_shape must be whole numbers such as (3, 28, 28), got {shape!r}")
        if not isinstance(self.layers, tuple):
            raise ConfigurationError(
                f"{what}: layers must be a tuple or a list of layers, got {_kind(self.layers)}: put them in brackets"
            )
        if not self.layers:
            raise ConfigurationError(f"{what} has no layers")
        for number, layer in enumerate(self.layers, 1):
            if not isinstance(layer, Layer):
                hint = f": write {layer.__name__}(…)" if isinstance(layer, type) else ""
                raise ConfigurationError(f"{what}: layer number {number} is {_kind(layer)}, expected a layer{hint}")
            Layer.__post_init__(layer)  # a user's own class may have forgotten it

    def stages(self, columns: int) -> tuple[Stage, ...]:
        """Every layer at its position, for a number of columns.

        Raises:
            ConfigurationError: If a layer does not fit; the message begins with its name.
        """
        return _stages(self, columns)

    def parameters(self, columns: int) -> dict[ArrayName, Parameter]:
        """All learned arrays: ``ArrayName("conv1", "weight", 0)`` is column 0's piece of conv1's weights."""
        return {
            ArrayName(stage.layer.name, name, column): parameter
            for stage in self.stages(columns)
            for column in range(stage.columns)
            for name, parameter in stage.layer.parameters(stage.seen, column, stage.columns).items()
        }

    def layer(self, name: str) -> Layer:
        """The layer with that name."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        known = [layer.name for layer in self.layers]
        raise ConfigurationError(
            f"network '{self.name}' has no layer '{name}'; it has {', '.join(known)}.{nearest(name, known)}"
        )

    def exchanged_bytes(self, columns: int, batch_size: int, itemsize: int = 4) -> dict[str, int]:
        """Bytes exchanged between columns in a forward pass, by the layer that reads them; backward has as many."""
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
        if names.count(name) > 1 or "." in name or ":" in name or not name:
            raise ConfigurationError(
                f"network '{network.name}': layer names must be unique and without '.' and ':', got {names}"
            )
    stages: list[Stage] = []
    shape, sources, divided, trained = network.input_shape, columns, False, False
    for layer in network.layers:
        computing = columns if layer.on == "each" else 1
        gathers = divided and layer.sees == "all" and sources > 1
        if divided and computing != sources and not gathers:
            mend = "also be on 'first'" if computing > sources else "see 'all'"
            raise ConfigurationError(
                f"layer '{layer.name}': it is computed in {_columns(computing)}, the one before it in "
                f"{_columns(sources)}, so it must {mend}"
            )
        seen = (shape[0] * sources, *shape[1:]) if gathers else shape
        try:
            with blamed(layer, "output_shape"):
                shape = layer.output_shape(seen, computing)
            if not isinstance(shape, tuple) or not shape or not all(is_whole(n, 1) for n in shape):
                raise ConfigurationError(f"its output_shape gave {shape!r}, expected whole numbers from 1")
        except ConfigurationError as error:
            text = str(error)
            raise ConfigurationError(text if text.startswith("layer ") else f"layer '{layer.name}': {text}") from None
        divided = divided or layer.divides
        with blamed(layer, "parameters"):
            learns = bool(dict(layer.parameters(seen, 0, computing)))
        if not divided and computing > 1 and learns:
            raise ConfigurationError(
                f"layer '{layer.name}': it would learn the same in each of {computing} columns: put it after one that "
                "divides them, such as Conv2d"
            )
        stages.append(Stage(layer, computing, sources, gathers, seen, shape, trained, divided))
        trained = trained or learns
        sources = computing
    return tuple(stages)
