"""Keeps other libraries from printing their own messages in the programs of this package."""

from __future__ import annotations

import logging
import warnings


def quiet_decoders() -> None:
    """Silence Pillow's warnings and logs in this process: `minialex.data.images` reports errors in one line."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints unhandled records
