"""User-defined operations: plain functions on arrays that every backend with a method `apply` can run.

An operation is two functions, forward and backward, written against an array namespace `xp` (`numpy`, or `cupy` on a
GPU)::

    def forward(xp, x, *, slope):
        return xp.where(x > 0, x, slope * x)

    def backward(xp, dy, x, *, slope):
        return xp.where(x > 0, dy, slope * dy)

    leaky_relu = register("leaky_relu", forward, backward)

A layer calls ``leaky_relu(backend, x, slope=0.1)`` and ``leaky_relu.gradient(backend, dy, x, slope=0.1)``. They
promise the same as the protocol's operations: arguments are never written, the same arguments give the same bits,
and what the gradient needs is returned.
"""

from __future__ import annotations

import filecmp
import inspect
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import numpy as np

from minialex.backend.arrays import Array
from minialex.backend.program import Program, flatten
from minialex.backend.rules import FLOATS, RULES, Spec
from minialex.errors import ConfigurationError, MinialexError
from minialex.ranks import dividing
from minialex.ranks.group import Group, How

Plain = Callable[..., Any]
"""A function of the array namespace, arrays by position, and numbers by keyword."""


Example = tuple[Sequence[tuple[int, ...]], Mapping[str, Any]]
"""An example for trying an operation: the shape of each array, and the numbers."""

ROUNDINGS = 64


@dataclass(frozen=True, eq=False)
class Function:
    """One direction of an operation, as given to `Backend.apply`.

    Attributes:
        name: its name in recorded programs
        plain: the function itself
        rule: gives the `Spec` of each result for arrays and numbers, or raises `ConfigurationError`
        fast: functions that some backends run instead, by the backend's name
        roundings: see `register`
    """

    name: str
    plain: Plain
    rule: Callable[..., Any]
    fast: Mapping[str, Plain] = field(default_factory=dict)
    roundings: int = ROUNDINGS

    def compute(self, xp: Any, backend: str, *arrays: Any, **numbers: Any) -> Any:
        """The results for arrays of the namespace `xp`, on the backend with that name.

        Raises:
            ConfigurationError: If arguments do not fit, the function fails, or results are not what the rule says.
        """
        specs = self.rule(*arrays, **numbers)
        try:
            results = self.fast.get(backend, self.plain)(xp, *arrays, **numbers)
        except (MinialexError, MemoryError):
            raise
        except Exception as error:  # any error in a user's own arithmetic is its fault, not a bug of ours
            raise ConfigurationError(f"{self.name} failed: {type(error).__name__}: {error}") from error
        found = [(tuple(xp.shape(a)), getattr(a, "dtype", None)) for a in flatten(results)]
        wanted = [(spec.shape, spec.dtype) for spec in flatten(specs)]
        if found != wanted:
            raise ConfigurationError(f"{self.name} gave {_describe(found)}, expected {_describe(wanted)}")
        return tuple(results) if isinstance(specs, tuple) else flatten(results)[0]


def _describe(arrays: Sequence[tuple[tuple[int, ...], Any]]) -> str:
    return ", ".join(f"{shape} {dtype}" for shape, dtype in arrays)


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation with its gradient; see `register`.

    Attributes:
        name: of the operation
        arrays: names of the arrays that forward takes
        forward, backward: the two directions
        examples: see `register`
    """

    name: str
    arrays: tuple[str, ...]
    forward: Function
    backward: Function
    examples: tuple[Example, ...] = ()

    def __call__(self, backend: Any, *arrays: Array, **numbers: Any) -> Any:
        """The result y on a backend; a tuple (y, saved, …) if the shape rule gives more than one shape."""
        return method(backend, self.forward.name)(*arrays, **numbers)

    def gradient(self, backend: Any, dy: Array, *arrays: Array, **numbers: Any) -> Any:
        """The gradient of forward's array, or a tuple with that of each.

        Args:
            backend: as in the forward call
            dy: gradient of y
            arrays: forward's arrays, then what it saved
            numbers: as in the forward call
        """
        return method(backend, self.backward.name)(dy, *arrays, **numbers)


OPERATIONS: dict[str, Operation] = {}
"""The registered operations, by name."""

FUNCTIONS: dict[str, Function] = {}
"""Both directions of the registered operations, by their names in programs: ``gelu`` and ``gelu_backward``."""


def register(
    name: str,
    forward: Plain,
    backward: Plain,
    *,
    shape: Callable[..., Any] | None = None,
    fast: Mapping[str, tuple[Plain, Plain]] | None = None,
    arrays: Sequence[str] | None = None,
    examples: Sequence[Example] = (),
    roundings: int = ROUNDINGS,
) -> Operation:
    """Turn two plain functions into an operation of all backends.

    Args:
        name: the operation's name; its gradient is called NAME_backward
        forward: ``forward(xp, x, …, *, numbers)`` -> y, or (y, saved, …)
        backward: ``backward(xp, dy, x, …, saved, …, *, numbers)`` -> the gradient of forward's array, or a tuple with
            that of each; of the shape and dtype of the array
        shape: ``shape(x, …, *, numbers)`` -> y's shape, or a list of those of y and of what is saved (a `Spec` where
            the dtype is another one); it sees only ``shape`` and ``dtype``, and raises `ConfigurationError` for
            what does not fit. Without it y has the shape of the first array.
        fast: backend name -> a pair (forward, backward) that it runs instead
        arrays: names of forward's arrays; without it those of its parameters by position
        examples: what the conformance kit tries it with: pairs of the arrays' shapes and the numbers, such as
            ``([(2, 3, 4, 5)], {"slope": 0.1})``
        roundings: how far a backend's numbers may be from the exact ones, in roundings of a result's largest element

    Returns:
        The operation, to be called with a backend.

    Raises:
        ConfigurationError: If the name is taken, or forward does not say which arrays it takes.
    """
    if arrays is None:
        kinds = list(inspect.signature(forward).parameters.values())[1:]
        if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in kinds):
            raise ConfigurationError(f"operation '{name}': forward must name the arrays it takes, instead of *arrays")
        arrays = [parameter.name for parameter in kinds if parameter.kind is not parameter.KEYWORD_ONLY]
    if not arrays:
        raise ConfigurationError(f"operation '{name}': forward must take the namespace and at least one array")
    names = tuple(arrays)

    def rule(*given: Any, **numbers: Any) -> Any:
        if len(given) != len(names):
            raise ConfigurationError(f"{name}: expected {len(names)} arrays ({', '.join(names)}), got {len(given)}")
        dtypes = {np.dtype(array.dtype) for array in given}
        if len(dtypes) != 1 or next(iter(dtypes)).name not in FLOATS:
            what = _describe([(tuple(array.shape), array.dtype) for array in given])
            raise ConfigurationError(f"{name}: expected float32 or float64, the same for all; got {what}")
        (dtype,) = dtypes
        made = given[0].shape if shape is None else shape(*given, **numbers)
        if isinstance(made, Spec) or all(isinstance(n, int | np.integer) for n in made):
            return made if isinstance(made, Spec) else Spec(tuple(made), dtype)
        return tuple(one if isinstance(one, Spec) else Spec(tuple(one), dtype) for one in made)

    def backward_rule(dy: Any, *given: Any, **numbers: Any) -> Any:
        specs = flatten(rule(*given[: len(names)], **numbers))
        saved = [(f"saved array {number}", array) for number, array in enumerate(given[len(names) :])]
        for (what, array), spec in zip([("dy", dy), *saved], specs, strict=False):
            if tuple(array.shape) != spec.shape or np.dtype(array.dtype) != spec.dtype:
                got = _describe([(tuple(array.shape), array.dtype)])
                raise ConfigurationError(f"{name}_backward: expected {what} {spec.shape} {spec.dtype}, got {got}")
        if len(given) != len(names) + len(specs) - 1:
            raise ConfigurationError(
                f"{name}_backward: expected {len(names) + len(specs) - 1} arrays after dy, got {len(given)}"
            )
        made = tuple(Spec(tuple(array.shape), np.dtype(array.dtype)) for array in given[: len(names)])
        return made if len(made) > 1 else made[0]

    fast = fast or {}
    operation = Operation(
        name,
        names,
        Function(name, forward, rule, {key: pair[0] for key, pair in fast.items()}, roundings),
        Function(f"{name}_backward", backward, backward_rule, {key: pair[1] for key, pair in fast.items()}, roundings),
        tuple(examples),
    )
    for function in (operation.forward, operation.backward):
        known = FUNCTIONS.get(function.name)
        if function.name in RULES:
            raise ConfigurationError(
                f"the protocol already has an operation '{function.name}': give yours another name"
            )
        # a notebook cell run again defines its operation again, and so does a copy of a file
        if known and not _same_source(known.plain, function.plain):
            raise ConfigurationError(
                f"an operation '{function.name}' is already defined in {_source(known.plain)}: rename the one in "
                f"{_source(function.plain)}"
            )
    OPERATIONS[name] = operation
    FUNCTIONS.update({function.name: function for function in (operation.forward, operation.backward)})
    return operation


def _source(plain: Plain) -> str:
    """The file, or else the module, that defines a function."""
    return getattr(sys.modules.get(plain.__module__), "__file__", None) or plain.__module__


def _same_source(known: Plain, plain: Plain) -> bool:
    """Whether two functions come from one module, or from two copies of a file."""
    if known.__module__ == plain.__module__:
        return True
    try:
        return filecmp.cmp(_source(known), _source(plain), shallow=False)
    except OSError:
        return False


def method(backend: Any, name: str) -> Callable[..., Any]:
    """The function that performs a named operation on a backend: its method, or `Backend.apply` for a registered one.

    Raises:
        ConfigurationError: If the operation is a registered one, and the backend runs none.
    """
    function = FUNCTIONS.get(name)
    if name in OVER_RANKS and not hasattr(backend, name):
        return partial(OVER_RANKS[name], backend)
    if function is None:
        own: Callable[..., Any] = getattr(backend, name)
        return own
    if not hasattr(backend, "apply"):
        raise ConfigurationError(
            f"the {backend.name} backend runs only the protocol's operations, and '{name}' is not one: "
            "it has no method 'apply'"
        )
    return partial(backend.apply, function)


def sum_over_ranks(backend: Any, xs: Sequence[Array], *, group: Group, how: How = "fixed") -> list[Array]:
    """The sums of arrays over the ranks of a group (`minialex.ranks.group.Group.sum`), through the host.

    Only in a recorded program it is an operation, so that a compiler may place it: `Call` has the group as an argument.
    """
    RULES["sum_over_ranks"](xs, group, how)
    sums = [backend.to_numpy(x) for x in xs]
    group.sum(sums, sums, how)
    return [backend.to_device(array, x.device) for array, x in zip(sums, xs, strict=True)]


def _on_host(compute: Callable[..., Any], name: str) -> Callable[..., Any]:
    """An operation over ranks on activations (`minialex.ranks.dividing`), through the host."""

    def operation(backend: Any, xs: Sequence[Array], **how: Any) -> Any:
        RULES[name](xs, **how)
        made = compute([backend.to_numpy(x) for x in xs], **how)
        sent = [backend.to_device(np.ascontiguousarray(array), xs[0].device) for array in flatten(made)]
        return sent if isinstance(made, list) else sent[0]

    return operation


OVER_RANKS: dict[str, Callable[..., Any]] = {
    "sum_over_ranks": sum_over_ranks,
    **{
        f"{compute.__name__}_over_ranks": _on_host(compute, f"{compute.__name__}_over_ranks")
        for compute in (dividing.gather, dividing.scatter, dividing.swap)
    },
}
"""Operations that several ranks carry out together; they are part of recorded programs, and not of the protocol."""


@cache
def notice(how: str, *layers: str) -> None:
    """Log once how a backend runs the registered operations of some layers, and what that costs."""
    logging.getLogger("minialex").warning("%s: %s", ", ".join(layers), how)


def layers_with_own(program: Program) -> list[str]:
    """The layers in a program that use registered operations, each once."""
    return list(dict.fromkeys(call.layer for call in program.calls if call.operation in FUNCTIONS))


def rule_of(name: str) -> Callable[..., Any]:
    """The shape rule (`minialex.backend.rules`) of an operation, of the protocol or registered."""
    return FUNCTIONS[name].rule if name in FUNCTIONS else RULES[name]
