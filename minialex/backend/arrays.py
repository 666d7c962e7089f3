"""What is said of arrays everywhere: a backend's own are opaque, and padding may be one-sided."""

from __future__ import annotations

from typing import Any

Array = Any
"""A backend's own array: opaque, but for ``shape``, ``dtype`` (a NumPy dtype) and ``device`` (a name)."""

Padding = tuple[tuple[int, int], tuple[int, int]]
"""Rows of zeros added (above, below) and columns of zeros added (left, right)."""
