"""What a layer is: hyperparameters, an output shape, and the operations that it calls, forward and backward."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend
from minialex.errors import ConfigurationError, MinialexError
from minialex.philox import Stream, purpose

Shape = tuple[int, ...]
Sees = Literal["own", "all"]
Parameters = Mapping[str, Array]


def is_whole(value: object, least: int) -> bool:
    """Whether a value is an integer of at least the given minimum."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def is_finite(value: object) -> bool:
    """Whether a value is a finite number."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)


@dataclass(frozen=True)
class Context:
    """What a layer must know about the step and the column in which it runs.

    Attributes:
        training: whether dropout draws masks
        seed: the run's seed, for the random streams
        step: the run's step (in a recorded program a `Symbol`)
        first_sample: index of the batch's first image in the whole batch, when a batch is split
        column, columns: the number of this column, and of all columns that compute this layer
        need_dx: whether the gradient of the input is wanted (the first layer's is not)
    """

    training: bool = False
    seed: int = 0
    step: int = 0
    first_sample: int = 0
    column: int = 0
    columns: int = 1
    need_dx: bool = True

    def stream(self, name: str, first_element: int) -> Stream:
        """The random stream of a purpose at this step, starting at an element of the whole sample."""
        return Stream(self.seed, purpose(name), self.step, self.first_sample, first_element)


@dataclass(frozen=True)
class Parameter:
    """One array of a layer in one column; it is kept from step to step, and saved with the run.

    Attributes:
        shape: shape of this column's part
        std: standard deviation of its initial values (0: none are drawn)
        constant: added to the initial values
        first_element: index of the piece's first element in the whole layer's array (columns one after another)
        learned: whether it follows its gradient with the recipe's rate, momentum and weight decay. In training, what
            `Layer.backward` returns for state that is not learned (a running mean) is subtracted from it unchanged.
    """

    shape: Shape
    std: float = 0.0
    constant: float = 0.0
    first_element: int = 0
    learned: bool = True


@dataclass(frozen=True)
class Layer:
    """A frozen dataclass of hyperparameters. Widths are those of the whole layer; each column has its share.

    Attributes:
        name: the layer's name in its network; its random streams and parameters are named after it
        sees: what a column's part of the layer reads: its ``"own"`` column's output of the layer before, or that of
            ``"all"`` columns, which the executor (`minialex.engine.columns`) gathers
        on: where it is computed: in ``"each"`` column, or entirely on the ``"first"`` one, like the 2012 network's last
            layer
    """

    divides: ClassVar[bool] = False
    """Whether each column computes a share of the output even if all see the same input (the image)."""

    name: str
    sees: Sees = field(default="own", kw_only=True)
    on: Literal["each", "first"] = field(default="each", kw_only=True)

    def __post_init__(self) -> None:
        """Check the fields; a layer with its own fields calls this first, and then the methods below.

        Raises:
            ConfigurationError: Naming the layer and the field.
        """
        name = getattr(self, "name", None)  # a user's own class may not even have one
        self.expect("name", isinstance(name, str) and bool(name), "a string")
        self.one_of("sees", "own", "all")
        self.one_of("on", "each", "first")

    def expect(self, name: str, fits: bool, what: str) -> None:
        """Raise ConfigurationError unless a field's value fits; `what` says which values do."""
        if not fits:
            own = getattr(self, "name", None)
            layer = f"layer '{own}'" if isinstance(own, str) else f"a layer ({type(self).__name__})"
            raise ConfigurationError(f"{layer}: {name} must be {what}, got {getattr(self, name, None)!r}")

    def whole_numbers(self, *names: str) -> None:
        """Expect whole numbers from 1."""
        for name in names:
            self.expect(name, is_whole(getattr(self, name), 1), "a whole number from 1")

    def finite_numbers(self, *names: str) -> None:
        """Expect numbers that are finite."""
        for name in names:
            self.expect(name, is_finite(getattr(self, name)), "a finite number")

    def one_of(self, name: str, *words: str) -> None:
        """Expect one of some words."""
        self.expect(name, getattr(self, name) in words, " or ".join(f"'{word}'" for word in words))

    def output_shape(self, shape: Shape, columns: int) -> Shape:
        """The output shape (without N) of a column's part, for the input shape that it sees; here the same shape.

        Raises:
            ConfigurationError: If the input does not fit, or the layer cannot be divided into that many columns.
        """
        return shape

    def window(self, axis: int) -> tuple[int, int, int] | None:
        """What one position of the output reads of the input along an axis (0: rows, 1: columns).

        Returns:
            How many positions, the distance between those of neighbouring outputs, and how many of the first output's
            are before the input; here its own position alone. None: the whole input.
        """
        return 1, 1, 0

    def parameters(self, shape: Shape, column: int, columns: int) -> dict[str, Parameter]:
        """The arrays that a column's part learns or keeps, by their names within the layer; here none."""
        return {}

    def multiply_adds(self, shape: Shape, columns: int) -> int:
        """Multiply-adds of a column's part in the forward pass of one image (matrix products and convolutions only)."""
        return 0

    def share(self, width: int, columns: int) -> int:
        """A column's share of the layer's width."""
        if width < 1 or width % columns:
            raise ConfigurationError(
                f"layer '{self.name}': a width of {width} cannot be divided into {columns} columns"
            )
        return width // columns

    def forward(self, backend: Backend, parameters: Parameters, x: Array, context: Context) -> tuple[Array, Any]:
        """The output y, and what `backward` needs."""
        raise NotImplementedError("it has no such method")

    def backward(
        self, backend: Backend, parameters: Parameters, saved: Any, dy: Array, context: Context
    ) -> tuple[Array | None, dict[str, Array]]:
        """Gradient of the input (None if the context does not need it), and of each parameter by name."""
        raise NotImplementedError("it has no such method")


@contextmanager
def blamed(layer: Layer, method: str) -> Iterator[None]:
    """Say which layer's method failed, if the layer is user-defined.

    Raises:
        ConfigurationError: Instead of whatever it raised.
    """
    try:
        yield
    except (MinialexError, MemoryError):
        raise
    except Exception as error:
        if type(layer).__module__.startswith("minialex.network."):
            raise  # our own: a bug
        hint = ": a Layer only calls the backend's operations; its own arithmetic belongs in an ArrayLayer"
        raise ConfigurationError(
            f"layer '{layer.name}': its {method} failed: {type(error).__name__}: {error}"
            f"{hint if 'ward' in method else ''}"
        ) from error
