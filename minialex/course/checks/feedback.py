"""The feedback of checks, and the comparisons that checks are made of.

A check is a function of one answer. It computes the truth with the library, raises `NotYet` to say what differs, and
returns a sentence if the answer is right. The decorator `exercise` turns that into a `Feedback`, which a notebook
shows; it never raises, so that a notebook with unanswered exercises runs from top to bottom.
"""

from __future__ import annotations

import functools
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.course import TOLERANCE

State = Literal["right", "not yet", "not answered"]
_MARKS = {"right": ("✓", "#2e8b57"), "not yet": ("✗", "#c2571a"), "not answered": ("…", "#7d8790")}


@dataclass(frozen=True)
class Feedback:
    """The result of a check.

    Attributes:
        state: ``"right"``, ``"not yet"`` or ``"not answered"``
        message: what is right, what differs, or what to do
    """

    state: State
    message: str

    def __bool__(self) -> bool:
        return self.state == "right"

    def __repr__(self) -> str:
        return f"{_MARKS[self.state][0]} {self.state}: {self.message}"

    def _repr_html_(self) -> str:
        text, (sign, hue) = html.escape(self.message).replace("\n", "<br>"), _MARKS[self.state]
        style = f"border-left:4px solid {hue};padding:0.3em 0.8em;margin:0.3em 0"
        return f'<div style="{style}"><b>{sign} {self.state}</b> · {text}</div>'


class NotYet(Exception):
    """An answer differs from the truth; the message says how, in a sentence."""


class NotAnswered(Exception):
    """The answer is still a placeholder."""


def exercise(check: Callable[[Any], str]) -> Callable[[Any], Feedback]:
    """Make a check from a function that returns praise or raises `NotYet`.

    `...` and None are placeholders, alone, inside a tuple, list or dictionary, or returned by a function.
    """

    @functools.wraps(check)
    def checked(answer: Any) -> Feedback:
        try:
            refuse_placeholder(answer)
            return Feedback("right", check(answer))
        except NotYet as difference:
            return Feedback("not yet", str(difference))
        except NotAnswered:
            return Feedback("not answered", "replace the ... in the cell above, run it, and run this cell again.")
        except Exception as error:  # an unforeseen type of answer must not end the notebook
            return Feedback("not yet", f"this answer cannot be checked ({type(error).__name__}: {error}).")

    return checked


def refuse_placeholder(answer: Any) -> None:
    """Raise `NotAnswered` if an answer, or a part of it, is still ``...`` or None."""
    if answer is None or answer is ...:
        raise NotAnswered
    if isinstance(answer, Mapping):
        answer = list(answer.values())
    if isinstance(answer, tuple | list):
        for part in answer:
            refuse_placeholder(part)


def number(answer: Any, what: str = "the answer") -> float:
    """An answer as one finite number.

    Raises:
        NotYet: If it is not.
    """
    if isinstance(answer, np.ndarray) and answer.size == 1:
        answer = answer.reshape(-1)[0]
    if isinstance(answer, bool | np.bool_) or not isinstance(answer, int | float | np.number):
        raise NotYet(f"{what} should be a number, and yours is of type {type(answer).__name__}.")
    value = float(answer)
    if not math.isfinite(value):
        raise NotYet(f"{what} should be finite, and yours is {value}.")
    return value


def near(value: float, truth: float, tolerance: float = 1e-6) -> bool:
    """Whether two numbers agree within a fraction of the larger one."""
    return math.isclose(value, truth, rel_tol=tolerance, abs_tol=tolerance * 1e-3)


def same_number(
    answer: Any,
    truth: float,
    what: str = "the answer",
    mistakes: Sequence[tuple[float, str]] = (),
    *,
    hint: str = "",
    tolerance: float = 1e-6,
) -> None:
    """Compare a number with the truth.

    Args:
        mistakes: (number that a typical mistake gives, what that mistake is); computed, like the truth
        hint: a hint for any mistake

    Raises:
        NotYet: If they differ: the mistake, or whether the answer is too small or too large.
    """
    value = number(answer, what)
    if near(value, truth, tolerance):
        return
    for wrong, words in mistakes:
        if near(value, wrong, tolerance) and not near(wrong, truth, tolerance):
            raise NotYet(f"{what} is {_plain(value)}: {words}")
    side = "small" if value < truth else "large"
    raise NotYet(f"{what} is {_plain(value)}, which is too {side}. {hint}".strip())


def _plain(value: float) -> str:
    return f"{round(value):,}" if value == round(value) and abs(value) < 1e15 else f"{value:.6g}"


def same_array(
    answer: Any,
    truth: NDArray[Any],
    what: str = "the result",
    mistakes: Sequence[tuple[NDArray[Any], str]] = (),
    *,
    hint: str = "",
    axes: Sequence[str] = (),
    tolerance: float = TOLERANCE,
) -> None:
    """Compare an array with the truth: type, shape, then every number.

    Args:
        mistakes: (array that a typical mistake gives, what that mistake is)
        axes: letters of the axes, for naming a position
        tolerance: for each number, as a fraction of the truth's largest magnitude

    Raises:
        NotYet: If they differ: the mistake, or the shapes, or the first position that differs, with both numbers.
    """
    array = as_array(answer, what)
    close = np.asarray(array.shape == truth.shape and _close(array, truth, tolerance))
    if close.all():
        return
    for wrong, words in mistakes:
        if wrong.shape == array.shape and _close(array, wrong, tolerance).all():
            raise NotYet(words)
    if array.shape != truth.shape:
        raise NotYet(f"{what} has the shape {list(array.shape)}, it should be {list(truth.shape)}. {hint}".strip())
    place = tuple(int(i) for i in np.argwhere(~close)[0])
    names = axes if len(axes) == len(place) else [f"axis {i}" for i in range(len(place))]
    at = ", ".join(f"{name} = {i}" for name, i in zip(names, place, strict=True))
    where = f"at {at} it is" if at else "it is"
    count = int((~close).sum())
    many = f"{count:,} of {close.size:,} numbers differ" if close.size > 1 else "it differs"
    raise NotYet(f"{what}: {where} {array[place]:.6g}, the library has {truth[place]:.6g}; {many}. {hint}".strip())


def as_array(answer: Any, what: str = "the result") -> NDArray[Any]:
    """An answer as an array of finite numbers.

    Raises:
        NotYet: If it is not.
    """
    try:
        array = np.asarray(answer)
    except ValueError:
        raise NotYet(f"{what} should be an array, and yours has rows of different lengths.") from None
    if array.dtype.kind not in "fiub":
        raise NotYet(f"{what} should be an array of numbers, and yours is of type {type(answer).__name__}.")
    if not np.isfinite(array).all():
        raise NotYet(f"{what} holds {int((~np.isfinite(array)).sum())} values that are not finite (NaN or infinity).")
    return array


def reference(operation: str, *arguments: Any, **named: Any) -> Any:
    """An operation of the reference backend on NumPy arrays; returns NumPy arrays, or a tuple of them."""
    backend = _backend()
    sent = [backend.to_device(a, backend.devices[0]) if isinstance(a, np.ndarray) else a for a in arguments]
    result = getattr(backend, operation)(*sent, **named)
    if isinstance(result, tuple):
        return tuple(part if part is None else backend.to_numpy(part) for part in result)
    return backend.to_numpy(result)


@functools.cache
def _backend() -> Backend:
    return registry.load("numpy")


def random(name: str, *shape: int) -> NDArray[np.float64]:
    """Normal random numbers, always the same for a name."""
    stream = philox.Stream(0, philox.purpose(f"check/{name}"))
    return philox.normal(stream, 1, math.prod(shape)).reshape(shape)


def _close(array: NDArray[Any], other: NDArray[Any], tolerance: float) -> NDArray[np.bool_]:
    scale = max(float(np.abs(other).max(initial=0.0)), 1e-30)
    return np.asarray(np.abs(array.astype(np.float64) - other) <= tolerance * scale)


def call(function: Any, *arguments: Any, what: str = "your function", **named: Any) -> Any:
    """Call the reader's function with copies of the arguments.

    Raises:
        NotAnswered: If it returns a placeholder or raises NotImplementedError.
        NotYet: If it is not a function, raises, or writes to its arguments.
    """
    if not callable(function):
        raise NotYet(f"{what} should be a function, and yours is of type {type(function).__name__}.")
    copies = [np.array(a) if isinstance(a, np.ndarray) else a for a in arguments]
    copied = {name: np.array(a) if isinstance(a, np.ndarray) else a for name, a in named.items()}
    try:
        result = function(*copies, **copied)
    except NotImplementedError:
        raise NotAnswered from None
    except Exception as error:
        shapes = ", ".join(f"an array {list(a.shape)}" if isinstance(a, np.ndarray) else repr(a) for a in arguments)
        raise NotYet(f"{what} raises {type(error).__name__} when it is given {shapes}: {error}") from None
    refuse_placeholder(result)
    for before, after in zip(arguments, copies, strict=True):
        if isinstance(before, np.ndarray) and not np.array_equal(before, after):
            raise NotYet(f"{what} writes into its arguments: make new arrays instead.")
    return result
