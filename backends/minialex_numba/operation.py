"""`operation`: as `minialex.backend.pretend.operation`, for functions whose first parameter is the backend's pool of threads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from minialex.backend import pretend


class operation(pretend.operation):  # noqa: N801 - used as a decorator
    """Turn a function ``(pool, arrays …, numbers …)`` into a backend's method of the same other parameters."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        signature = inspect.signature(function)
        self.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __get__(self, instance: Any, owner: type | None = None) -> Callable[..., Any]:
        if instance is None:
            return self
        bound = pretend.operation(partial(self.function, instance.pool))
        bound.name, bound.rule = self.name, self.rule
        return bound.call
