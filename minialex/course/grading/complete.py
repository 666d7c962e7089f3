"""A backend made of given operations, with the NumPy reference for the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from minialex.backend import registry
from minialex.backend.pretend import operation
from minialex.backend.protocol import Backend
from minialex.backend.rules import RULES
from minialex.errors import ConfigurationError, nearest

FILLED_IN_BY = "numpy"


def complete(functions: Mapping[str, Callable[..., Any]], name: str = "theirs") -> Backend:
    """A whole backend of which some operations are the given ones.

    Args:
        functions: by the operation's name, plain functions on NumPy arrays with the parameters of the protocol's method
            (they become methods through `minialex.backend.pretend.operation`, which checks shapes and devices), or
            members that are methods already
        name: the new backend's name

    Returns:
        A backend on two pretend devices. All operations that are not given are the NumPy reference's.

    Raises:
        ConfigurationError: If the protocol has no operation of a name, or a function has other parameters.

    Examples:
        >>> import numpy as np
        >>> mine = complete({"relu": lambda x: np.where(x > 0, x, np.zeros_like(x))})
        >>> mine.to_numpy(mine.relu(mine.to_device(np.float32([-1, 2]), "cpu:0")))
        array([0., 2.], dtype=float32)
    """
    members: dict[str, Any] = {}
    for key, function in functions.items():
        if key not in RULES:
            raise ConfigurationError(f"the protocol has no operation '{key}'.{nearest(key, RULES)}")
        fault = registry.signature_fault(key, function)
        if fault:
            raise ConfigurationError(fault)
        members[key] = function if isinstance(function, operation) else operation(function)
    reference = vars(type(registry.load(FILLED_IN_BY)))
    body = {key: value for key, value in reference.items() if key not in ("__dict__", "__weakref__", "__doc__")}
    return cast(Backend, type("Completed", (), {**body, **members, "name": name})())
