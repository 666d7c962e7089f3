"""A step as data: the sequence of operations that it is, recorded once, for `Backend.compile_step`.

`Recorder` is a backend that computes nothing: its arrays are `Value`s with a shape, a dtype and a device, and each
operation that is called on it becomes a `Call`. Walking the layers once with a recorder gives the `Program` of a
training or an inference step. Numbers that change from step to step (the learning rates, the step of a random
stream) are `Symbol`s in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol, cast

import numpy as np

from minialex import shapes
from minialex.backend import MOVERS, OPERATIONS, Array, Backend
from minialex.errors import ConfigurationError, DeviceMismatch
from minialex.philox import Stream


@dataclass(frozen=True, eq=False)
class Value:
    """An array of a recorded program: what it looks like and where it lives. Compared by identity."""

    index: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    device: str

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Symbol:
    """A number that is given anew at every call of a compiled step, by name."""

    name: str


@dataclass(frozen=True)
class Call:
    """One operation of a program.

    Attributes
    ----------
    operation : name of the protocol's method
    args, kwargs : its arguments in the protocol's form; arrays are `Value`s, changing numbers are `Symbol`s (also
        as the ``step`` of a `Stream`)
    results : the `Value`s that come out, flat; None where the operation returns None
    layer, column, phase : whose work it is: a layer's name, the column's number, ``"forward"``, ``"backward"``,
        ``"update"``, ``"exchange"`` or ``"input"``
    """

    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Value | None, ...]
    layer: str = ""
    column: int = 0
    phase: str = ""


@dataclass(frozen=True)
class Program:
    """A recorded step.

    Attributes
    ----------
    bound : arrays that live longer than a step, by name (``"conv1.weight:0"``, ``"momentum/conv1.weight:0"``, …);
        `Backend.compile_step` is given them once
    fed : arrays that are given at every call, by name (``"images@cpu:0"``, ``"labels"``, …)
    symbols : names of the numbers that are given at every call
    calls : the operations, in an order that may be followed one by one
    outputs : arrays to return, by name
    """

    bound: dict[str, Value]
    fed: dict[str, Value]
    symbols: tuple[str, ...]
    calls: tuple[Call, ...]
    outputs: dict[str, Value]


Watch = Callable[[str, int, str], None]
"""Called before a piece of work begins, with the layer's name, the column, and the phase of `Call`."""


class CompiledStep(Protocol):
    """What `Backend.compile_step` returns."""

    def __call__(self, feed: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Array]:
        """Run the step: `feed` has the fed arrays and the symbols' numbers by name; returns the outputs by name.

        Outputs stay valid until the next call. With `watch` the step tells where its time goes: all work begun
        before a call of `watch` is done when it is called. Work that serves several layers or columns at once is
        counted to the first of them.
        """
        ...


def flatten(result: Any) -> list[Any]:
    """Results of an operation as a flat list: one array, or a tuple or list of arrays and None."""
    return list(result) if isinstance(result, tuple | list) else [result]


def values(arguments: Any) -> list[Value]:
    """All `Value`s among (nested) arguments."""
    if isinstance(arguments, Value):
        return [arguments]
    if isinstance(arguments, Mapping):
        arguments = list(arguments.values())
    if isinstance(arguments, tuple | list):
        return [value for item in arguments for value in values(item)]
    return []


@dataclass(eq=False)
class Recorder:
    """A backend whose operations are written down instead of computed."""

    name: ClassVar[str] = "recorder"
    devices: tuple[str, ...]
    calls: list[Call] = field(default_factory=list)
    where: tuple[str, int, str] = ("", 0, "")
    count: int = 0

    def value(self, shape: Sequence[int], dtype: Any, device: str) -> Value:
        """A new array of the program."""
        if device not in self.devices:
            raise ConfigurationError(f"no device '{device}'; there are {', '.join(self.devices)}")
        self.count += 1
        return Value(self.count, tuple(shape), np.dtype(dtype), device)

    def call(self, operation: str, *args: Any, **kwargs: Any) -> Any:
        """Write one operation down and return what it would."""
        devices = {value.device for value in values((args, kwargs))}
        if len(devices) != 1:
            raise DeviceMismatch(f"{operation}: arrays live on different devices ({', '.join(sorted(devices))})")
        specs = shapes.RULES[operation](*args, **kwargs)
        made = [spec and self.value(spec.shape, spec.dtype, next(iter(devices))) for spec in flatten(specs)]
        self.calls.append(Call(operation, args, kwargs, tuple(made), *self.where))
        return type(specs)(made) if isinstance(specs, tuple | list) else made[0]

    def copy_to(self, x: Value, device: str) -> Value:
        """A copy on another device, written down only if it is another."""
        if x.device == device:
            return x
        copy = self.value(x.shape, x.dtype, device)
        self.calls.append(Call("copy_to", (x, device), {}, (copy,), *self.where))
        return copy

    def zeros(self, shape: tuple[int, ...], dtype: str, device: str) -> Value:
        """An array of zeros."""
        made = self.value(shape, dtype, device)
        self.calls.append(Call("zeros", (tuple(shape), dtype, device), {}, (made,), *self.where))
        return made

    def synchronize(self, device: str) -> None:
        """Nothing to record: the order of calls is enough."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in shapes.RULES:
            return lambda *args, **kwargs: self.call(name, *args, **kwargs)
        if name in (*MOVERS, *OPERATIONS):
            raise ConfigurationError(f"{name} cannot be part of a recorded step: it leaves the device")
        raise AttributeError(name)


def as_backend(recorder: Recorder) -> Backend:
    """A recorder seen as the backend that it stands in for (its operations exist through ``__getattr__``)."""
    return cast(Backend, recorder)


def interpret(program: Program, backend: Backend, bindings: Mapping[str, Array]) -> CompiledStep:
    """Run a program call by call: what `compile_step` means, and what a compiled step is compared with."""

    def step(feed: Mapping[str, Any], watch: Watch | None = None) -> dict[str, Array]:
        known: dict[Value, Any] = {value: bindings[name] for name, value in program.bound.items()}
        known.update({value: feed[name] for name, value in program.fed.items()})

        def resolve(argument: Any) -> Any:
            if isinstance(argument, Value):
                return known[argument]
            if isinstance(argument, Symbol):
                return feed[argument.name]
            if isinstance(argument, Stream) and isinstance(argument.step, Symbol):
                return replace(argument, step=feed[argument.step.name])
            if isinstance(argument, list | tuple):
                return type(argument)(resolve(item) for item in argument)
            return argument

        where = None
        for call in program.calls:
            if watch is not None and where != (call.layer, call.column, call.phase):
                where = call.layer, call.column, call.phase
                watch(*where)
            function = getattr(backend, call.operation)
            made = function(*resolve(call.args), **{key: resolve(value) for key, value in call.kwargs.items()})
            known.update(
                (value, array) for value, array in zip(call.results, flatten(made), strict=True) if value is not None
            )
        return {name: known[value] for name, value in program.outputs.items()}

    return step
