"""Which backends the kit's tests run on."""

from __future__ import annotations

import importlib
import os
import sys

from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.errors import BackendUnavailable, ConfigurationError, MinialexError


def load(name: str) -> Backend:
    """A backend by its installed name, or by ``package.module:Class``; the current folder is looked into as well.

    Raises:
        ConfigurationError, BackendUnavailable: With the reason why it cannot be loaded.
    """
    if ":" not in name:
        return registry.load(name)
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:  # a student's own file, beside which pytest is started
        sys.path.insert(0, os.getcwd())
    try:
        kind = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"no backend '{name}': {error}") from error
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
