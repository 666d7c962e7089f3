"""Results for the host: fetched at once or, where a backend can, while the devices go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from minialex.backend.arrays import Array
from minialex.backend.protocol import Backend


def runs_ahead(backend: Backend) -> bool:
    """Whether more can be asked of the devices before results are there."""
    return hasattr(backend, "to_numpy_later")


def fetched(backend: Backend, arrays: Sequence[Array]) -> Callable[[], list[Any]]:
    """Begin to copy arrays to the host; the function waits for the copies.

    If the backend `runs_ahead`, work that is asked for in between changes nothing in them. Otherwise it is the function
    that copies, and it must be called before the arrays change.
    """
    if runs_ahead(backend):
        found: Callable[[], list[Any]] = backend.to_numpy_later(arrays)  # type: ignore[attr-defined]
        return found
    return lambda: [backend.to_numpy(array) for array in arrays]
