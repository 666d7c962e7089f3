"""These tests run from a bare checkout too: ``PYTHONPATH=.:backends pytest -m gpu tests/gpu``, nothing installed."""

from __future__ import annotations

from importlib.metadata import EntryPoint

from minialex import registry

if not registry.installed():
    POINTS = [
        EntryPoint("numpy", "minialex_numpy:NumpyBackend", registry.GROUP),
        EntryPoint("cuda", "minialex_cuda:CudaBackend", registry.GROUP),
    ]
    registry.entry_points = lambda group: POINTS
