"""Once this is imported CuPy and Numba CUDA find two pretend devices, for the rest of the process.

With ``PRETEND_CUDNN`` in the environment they have cuDNN, too, and with ``PRETEND_NCCL`` NCCL;
``PRETEND_SEED`` chooses in which order things are done.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pretend_cublas
import pretend_driver
import pretend_nccl

DRIVER = pretend_driver.Driver(seed=int(os.environ.get("PRETEND_SEED", "0")))

with tempfile.TemporaryDirectory() as folder:
    pretend_driver.install(DRIVER, Path(folder))
    pretend_cublas.install(DRIVER, Path(folder))
    NCCL = pretend_nccl.install(DRIVER, Path(folder)) if os.environ.get("PRETEND_NCCL") else None

if os.environ.get("PRETEND_CUDNN"):
    import pretend_cudnn

    pretend_cudnn.Here.driver = DRIVER
    sys.modules["cudnn"] = pretend_cudnn
