"""Which backends the kit's tests run on."""

from __future__ import annotations

from minialex.backend import registry
from minialex.backend.imports import find
from minialex.backend.protocol import Backend
from minialex.errors import BackendUnavailable, MinialexError


def load(name: str) -> Backend:
    """A backend by its installed name, or by ``package.module:Class`` or ``file.py:Class``; see `imports.find`.

    Raises:
        ConfigurationError, BackendUnavailable: With the reason why it cannot be loaded.
    """
    if ":" not in name:
        return registry.load(name)
    kind = find("backend", name)
    faults = registry.protocol_faults(kind)
    if faults:
        raise BackendUnavailable(f"backend '{name}' does not follow the protocol: {'; '.join(faults)}")
    try:
        return registry.build(name, kind)
    except MinialexError:
        raise
    except Exception as error:
        raise BackendUnavailable(f"backend '{name}' cannot be used: {type(error).__name__}: {error}") from error


def follows_protocol(name: str) -> bool:
    """Whether an installed backend that does not load is merely unable to run here, and not wrong."""
    try:
        return not registry.protocol_faults(registry.installed()[name].load())
    except Exception:  # what its import needs is not here
        return True
