"""Types for arrays: a backend's own arrays are opaque, and padding may be one-sided."""

from __future__ import annotations

from typing import Any

Array = Any
"""A backend's own array: opaque except for ``shape``, ``dtype`` (a NumPy dtype) and ``device`` (a name)."""

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Rows of zeros added (above, below) and columns of zeros added (left, right)."""
