"""What the library generates for its site: figures, tables and listings for the pages."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The source tree, which contains pages and records; for an installed package, a folder without them."""
