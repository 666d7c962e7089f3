"""The Python API: what `minialex` itself offers under short names, and what the commands call."""
