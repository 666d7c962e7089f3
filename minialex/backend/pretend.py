"""Arrays on pretend devices: what a backend that computes on the host needs around its operations.

The author of a CPU backend writes plain functions on NumPy arrays; `operation` turns each into a method that
checks shapes and dtypes (`minialex.backend.rules`) and that all arrays live on one device, unwraps them, and wraps the
results. ``cpu:0`` and ``cpu:1`` are the same memory under two names: a network split across two devices runs, and
fails where it would fail on two GPUs, on any laptop. See ``backends/minialex_numpy/backend.py`` for its use.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from minialex.backend.operations import Function
from minialex.backend.protocol import Backend
from minialex.backend.rules import RULES
from minialex.errors import ConfigurationError, DeviceMismatch, nearest

DEVICES = ("cpu:0", "cpu:1")

_bytes_in_use: Counter[str] = Counter()
_holders: Counter[int] = Counter()  # how many HostArrays share a block of memory, by its array's id


def _block(data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array that owns the memory of `data`, which may be a view of it."""
    while isinstance(data.base, np.ndarray):
        data = data.base
    return data


class HostArray:
    """A NumPy array that knows which pretend device it is on.

    Attributes:
        data, device: the array, and the device's name
        version: grows whenever the array is written in place (by `sgd_update`), so that results computed from it can
            be kept
    """

    __slots__ = ("_block", "data", "device", "version")

    def __init__(self, data: np.ndarray[Any, Any], device: str) -> None:
        self.data = data
        self.device = device
        self.version = 0
        self._block = _block(data)  # held, so that its id stays unique
        if not _holders[id(self._block)]:
            _bytes_in_use[device] += self._block.nbytes
        _holders[id(self._block)] += 1

    def __del__(self) -> None:
        _holders[id(self._block)] -= 1
        if not _holders[id(self._block)]:
            del _holders[id(self._block)]
            _bytes_in_use[self.device] -= self._block.nbytes

    @property
    def shape(self) -> tuple[int, ...]:
        """The lengths of the axes."""
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the numbers."""
        kind: np.dtype[Any] = self.data.dtype
        return kind

    def __repr__(self) -> str:
        return f"HostArray({self.shape}, {self.dtype}, {self.device!r})"


def _arrays(values: Sequence[Any]) -> list[HostArray]:
    found: list[HostArray] = []
    for value in values:
        if isinstance(value, HostArray):
            found.append(value)
        elif isinstance(value, np.ndarray):
            raise ConfigurationError("expected an array of this backend, got a NumPy array: call to_device first")
        elif isinstance(value, list | tuple):
            found += _arrays(value)
    return found


def _unwrap(value: Any) -> Any:
    if isinstance(value, HostArray):
        return value.data
    if isinstance(value, list | tuple) and any(isinstance(item, HostArray) for item in value):
        return [_unwrap(item) for item in value]
    if isinstance(value, np.floating):  # a Python float keeps float32 arrays float32, NumPy's float64 does not
        return float(value)
    return value


def _wrap(value: Any, device: str) -> Any:
    if isinstance(value, tuple | list):
        return type(value)(_wrap(item, device) for item in value)
    if value is None:
        return None
    return HostArray(np.ascontiguousarray(value).reshape(np.shape(value)), device)


def run(name: str, rule: Callable[..., Any], function: Callable[..., Any], args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Call a function on NumPy arrays with `HostArray`s: check, unwrap, compute, wrap.

    Raises:
        ConfigurationError: If shapes or dtypes do not fit, as the rule says.
        DeviceMismatch: If the arrays live on different devices.
    """
    arrays = _arrays([*args, *kwargs.values()])
    if not arrays:
        raise ConfigurationError(f"{name}: expected at least one array")
    device = arrays[0].device
    if any(array.device != device for array in arrays):
        places = ", ".join(array.device for array in arrays)
        raise DeviceMismatch(f"{name}: arrays live on different devices ({places}); copy_to first")
    rule(*args, **kwargs)
    if name == "sgd_update":
        for array in arrays[:2]:
            array.version += 1
    with np.errstate(all="ignore"):  # non-finite values propagate; training's guards notice them
        plain = function(*map(_unwrap, args), **{key: _unwrap(value) for key, value in kwargs.items()})
    return _wrap(plain, device)


class operation:  # noqa: N801 - used as a decorator
    """Turn a plain function on NumPy arrays into a backend's method with the same parameters; see `run`."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__wrapped__ = function  # inspect.signature follows it: reflection sees the true parameters
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.rule = RULES[name]

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., Any]:
        return self if instance is None else self.call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Check, unwrap, compute, wrap."""
        return run(self.name, self.rule, self.function, args, kwargs)


def apply(self: Backend, function: Function, *args: Any, **kwargs: Any) -> Any:
    """See `Backend.apply`: as a method of a class, ``apply = pretend.apply``."""
    return run(function.name, function.rule, partial(function.compute, np, self.name), args, kwargs)


def to_device(array: Any, device: str) -> HostArray:
    """See `Backend.to_device`."""
    if device not in DEVICES:
        raise ConfigurationError(f"no device '{device}'; there are {', '.join(DEVICES)}.{nearest(device, DEVICES)}")
    return HostArray(np.array(array, order="C", copy=True), device)


def to_numpy(x: HostArray) -> np.ndarray[Any, Any]:
    """See `Backend.to_numpy`."""
    return x.data.copy()


def copy_to(x: HostArray, device: str) -> HostArray:
    """See `Backend.copy_to`."""
    return x if x.device == device else to_device(x.data, device)


def zeros(shape: tuple[int, ...], dtype: str, device: str) -> HostArray:
    """See `Backend.zeros`."""
    return to_device(np.zeros(shape, dtype), device)


def reshape(x: np.ndarray[Any, Any], shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """See `Backend.reshape`."""
    return x.reshape(shape)


def concat(xs: Sequence[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """See `Backend.concat`."""
    return np.concatenate(xs, axis=1)


def split(x: np.ndarray[Any, Any], sizes: Sequence[int]) -> list[np.ndarray[Any, Any]]:
    """See `Backend.split`."""
    return np.split(x, np.cumsum(sizes)[:-1], axis=1)


def memory_in_use(device: str) -> int:
    """See `Backend.memory_in_use`: bytes behind live arrays, shared memory once, over all host backends."""
    return _bytes_in_use[device]
