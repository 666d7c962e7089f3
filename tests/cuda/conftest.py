"""`--backend cuda` on pretend devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from minialex.backend import registry
from minialex_cuda import CudaBackend
from minialex_cuda.runtime.fake import FakeRuntime

Loaded = list[CudaBackend]


@pytest.fixture
def pretend_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Loaded]:
    """A function of the bytes that each device has: from then on commands find two of them. Lists what was loaded."""

    def have(memory: int = 1 << 40) -> Loaded:
        original, loaded = registry.load, Loaded()

        def make(precision: Any = "float32") -> CudaBackend:
            loaded.append(CudaBackend(precision=precision, runtime=FakeRuntime(memory=memory)))
            return loaded[-1]

        def load(name: str | None = None, **options: Any) -> Any:
            return registry.build("cuda", make, **options) if name == "cuda" else original(name, **options)

        monkeypatch.setattr(registry, "load", load)
        return loaded

    return have
