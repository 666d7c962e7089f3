"""Checks the environment variables that Numba reads while it is imported."""

from __future__ import annotations

import os

from minialex.errors import ConfigurationError


def import_numba() -> None:
    """Import Numba, whose errors about its variables become one line (its warnings do where backends are loaded).

    Raises:
        ConfigurationError: If a variable has a value that kernels cannot be compiled with; it is named.
    """
    try:
        import numba
    except ValueError as error:  # of the number of threads, without its name
        raise _refused("NUMBA_NUM_THREADS", str(error)) from None
    if numba.config.DISABLE_JIT:
        raise _refused("NUMBA_DISABLE_JIT", "kernels must be compiled")


def _refused(name: str, reason: str) -> ConfigurationError:
    value = os.environ.get(name, "")
    return ConfigurationError(
        f"the environment variable {name}={value} cannot be used ({reason.rstrip('.')}): unset it"
    )
