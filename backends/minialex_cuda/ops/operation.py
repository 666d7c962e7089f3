"""`operation` turns a plain function on a `Place` and arrays into a backend's method, checked as the protocol asks."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from minialex.errors import ConfigurationError, DeviceMismatch
from minialex.shapes import RULES
from minialex_cuda.runtime.array import CudaArray


def arrays_of(values: Any) -> Iterator[CudaArray]:
    """All arrays among (nested) arguments; anybody else's array is refused."""
    for value in values:
        if isinstance(value, CudaArray):
            yield value
        elif isinstance(value, list | tuple):
            yield from arrays_of(value)
        elif hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic):
            raise ConfigurationError(
                f"expected an array of the cuda backend, got a {type(value).__name__}: call to_device first"
            )


class operation:  # noqa: N801 - used as a decorator
    """A backend's method of the same parameters as a function ``(place, arrays …, numbers …)``, but the first.

    Raises
    ------
    ConfigurationError
        If shapes or dtypes do not fit (see `minialex.shapes`).
    DeviceMismatch
        If the arrays live on different devices.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        signature = inspect.signature(function)  # reflection sees the protocol's parameters
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        self.rule = RULES[name]

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else partial(self.call, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Reflection alone asks whether the class attribute can be called."""
        return self.call(*args, **kwargs)

    def call(self, backend: Any, *args: Any, **kwargs: Any) -> Any:
        """Check, and do the work on the arrays' device."""
        devices = list(dict.fromkeys(array.device for array in arrays_of([*args, *kwargs.values()])))
        if not devices:
            raise ConfigurationError(f"{self.name}: expected at least one array")
        if len(devices) > 1:
            raise DeviceMismatch(f"{self.name}: arrays live on different devices ({', '.join(devices)}); copy_to first")
        self.rule(*args, **kwargs)
        return self.function(backend.place(devices[0]), *args, **kwargs)
