"""Keeps other libraries from printing their own messages in the programs of this package."""

from __future__ import annotations

import logging
import warnings


def quiet_decoders() -> None:
    """Let Pillow warn and log nothing in this process: `minialex.data.images` says in one line what is wrong."""
    warnings.filterwarnings("ignore", module=r"PIL\b")
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints what nobody handles
