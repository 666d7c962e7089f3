"""Records a step with a backend that computes nothing and records its calls, and runs the recording.

Its arrays are `Value`s with a shape, a dtype and a device, and each operation that is called on it becomes a `Call`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import numpy as np

from minialex.backend import rules
from minialex.backend.arrays import Array
from minialex.backend.operations import Function, method, rule_of
from minialex.backend.program import ArrayName, Call, CompiledStep, Program, Symbol, Value, Watch, flatten, values
from minialex.backend.protocol import MOVERS, OPERATIONS, Backend
from minialex.errors import ConfigurationError, DeviceMismatch
from minialex.philox import Stream


@dataclass(eq=False)
class Recorder:
    """A backend whose operations are recorded instead of computed."""

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
        """Record one operation and return what it would return."""
        devices = {value.device for value in values((args, kwargs))}
        if len(devices) != 1:
            raise DeviceMismatch(f"{operation}: arrays live on different devices ({', '.join(sorted(devices))})")
        specs = rule_of(operation)(*args, **kwargs)
        made = [spec and self.value(spec.shape, spec.dtype, next(iter(devices))) for spec in flatten(specs)]
        self.calls.append(Call(operation, args, kwargs, tuple(made), *self.where))
        return type(specs)(made) if isinstance(specs, tuple | list) else made[0]

    def apply(self, function: Function, *args: Any, **kwargs: Any) -> Any:
        """Record a user-defined operation, like the protocol's."""
        return self.call(function.name, *args, **kwargs)

    def copy_to(self, x: Value, device: str) -> Value:
        """A copy on another device, recorded only if the device differs."""
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
        """Record nothing: the order of calls suffices."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in rules.RULES:
            return lambda *args, **kwargs: self.call(name, *args, **kwargs)
        if name in (*MOVERS, *OPERATIONS):
            raise ConfigurationError(f"{name} cannot be part of a recorded step, because it leaves the device")
        raise AttributeError(name)


def as_backend(recorder: Recorder) -> Backend:
    """A recorder seen as the backend that it stands in for (its operations exist through ``__getattr__``)."""
    return cast(Backend, recorder)


def interpret(program: Program, backend: Backend, bindings: Mapping[ArrayName, Array]) -> CompiledStep:
    """Run a program call by call: the meaning of `compile_step`, with which compiled steps are compared."""

    def step(feed: Mapping[ArrayName, Any], watch: Watch | None = None) -> dict[ArrayName, Array]:
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
            function = method(backend, call.operation)
            made = function(*resolve(call.args), **{key: resolve(value) for key, value in call.kwargs.items()})
            known.update(
                (value, array) for value, array in zip(call.results, flatten(made), strict=True) if value is not None
            )
        return {name: known[value] for name, value in program.outputs.items()}

    return step
