"""The Python API: what `minialex` offers under short names, and what the commands call."""
