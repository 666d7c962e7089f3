"""What the environment says to Numba, looked at while Numba is imported: it reads its variables then."""

from __future__ import annotations

import os
import re
import warnings

from minialex.errors import ConfigurationError


def import_numba() -> None:
    """Import Numba, whose warnings and errors about its variables become one line.

    Raises:
        ConfigurationError: If a variable has a value that Numba cannot use; it is named.
    """
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        try:
            import numba
        except ValueError as error:  # of the number of threads, without its name
            raise _refused("NUMBA_NUM_THREADS", str(error)) from None
    for warning in found:
        name = re.search(r"Environment variable '(\w+)'", str(warning.message))
        if name:
            raise _refused(name[1], "not a value that Numba understands")
    if numba.config.DISABLE_JIT:
        raise _refused("NUMBA_DISABLE_JIT", "kernels must be compiled")


def _refused(name: str, reason: str) -> ConfigurationError:
    value = os.environ.get(name, "")
    return ConfigurationError(f"the environment variable {name}={value} cannot be used ({reason.rstrip('.')}): unset it")
