"""Names for the types of NumPy arrays that the operations take."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""float32 or float64; results have the dtype of the arguments."""
