"""Once this is imported CuPy and Numba CUDA find two pretend devices, for the rest of the process."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pretend_cublas
import pretend_driver

DRIVER = pretend_driver.Driver(seed=int(os.environ.get("PRETEND_SEED", "0")))

with tempfile.TemporaryDirectory() as folder:
    pretend_driver.install(DRIVER, Path(folder))
    pretend_cublas.install(DRIVER, Path(folder))
