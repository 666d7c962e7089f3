"""Checks the environment variables that Numba reads when it is imported."""

from __future__ import annotations

import os

from minialex.errors import ConfigurationError


def import_numba() -> None:
    """Import Numba; errors about its variables become one line (its warnings do so where backends are loaded).

    Raises:
        ConfigurationError: if kernels cannot be compiled with a variable's value; the error names the variable
    """
    try:
        import numba
    except ValueError as error:  # about the number of threads, without the variable's name
        raise _refused("NUMBA_NUM_THREADS", str(error)) from None
    if numba.config.DISABLE_JIT:
        raise _refused("NUMBA_DISABLE_JIT", "kernels must be compiled")


def _refused(name: str, reason: str) -> ConfigurationError:
    value = os.environ.get(name, "")
    return ConfigurationError(
        f"the environment variable {name}={value} cannot be used ({reason.rstrip('.')}): unset it"
    )
