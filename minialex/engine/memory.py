"""When memory runs out: how much a step needs, how much is available, and the batch size that would fit.

If the backend does not know, it is measured: two small batches show what an image needs, and the batch size that
follows is tried once, without its update, before it is recommended.
"""

from __future__ import annotations

import traceback
import tracemalloc
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from minialex.backend.arrays import Array
from minialex.backend.program import STEP, ArrayName
from minialex.backend.protocol import Backend
from minialex.engine.step import Kind, Plan, rate_name, record, walk_step
from minialex.errors import ResourceError
from minialex.ranks.group import apart
from minialex.screen.formats import readable_size

SHARE = 0.75  # of the available memory, that a step may take: batches read ahead need some, too
COMPILER = 256 << 20  # bytes reserved for what a backend compiles, if there are that many


def explained(
    error: MemoryError, backend: Backend, plan: Plan, kind: Kind, batch_size: int, bound: Mapping[ArrayName, Array]
) -> ResourceError:
    """Make an error that tells the user what to do.

    Args:
        error: the error raised; its frames are cleared, since they hold the memory that was insufficient
        backend, plan, kind, batch_size, bound: the step that was run, or made
    """
    traceback.clear_frames(error.__traceback__)
    plan = replace(plan, group=apart(plan.group))  # the other ranks do not try it
    if hasattr(error, "fits"):
        fits, facts = int(error.fits), str(error)
    else:
        available = available_memory()
        fits, needed = _find(backend, plan, kind, batch_size, bound, available)
        facts = f"about {readable_size(needed)} needed" if needed else str(error) or "no more to be had"
        facts += "" if available is None else f", {readable_size(available)} available"
    advice = f"try batch_size = {fits}" if fits else "not even one image fits: try a smaller network"
    images = "1 image" if batch_size == 1 else f"{batch_size} images"
    return ResourceError(f"out of memory with a batch of {images} ({facts}); {advice}")


def available_memory() -> int | None:
    """Bytes that this process may still allocate, by its own limit, its container's, the machine's; None: unknown."""
    found = []
    with suppress(ImportError, OSError, ValueError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            found.append(limit - pages * resource.getpagesize())
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]))
    with suppress(OSError, ValueError):
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text("ascii")) for name in ("max", "current"))
        found.append(limit - used)
    return max(0, min(found)) if found else None


def _find(
    backend: Backend, plan: Plan, kind: Kind, batch_size: int, bound: Mapping[ArrayName, Array], available: int | None
) -> tuple[int, int]:
    """A batch size that fits (0 if none does), and the bytes that the failed one needs (0 if unknown)."""
    small = max(1, batch_size // 64)
    first, second = (_peak(backend, plan, kind, size, bound) for size in (small, 2 * small))
    needed, fits = 0, batch_size // 2
    if first is not None and second is not None and second > first:
        each = (second - first) / small
        needed = round(first + (batch_size - small) * each)
        if available is not None:
            usable = max(min(SHARE * available, available - COMPILER), SHARE / 2 * available)
            fits = min(batch_size - 1, small + int((usable - first) / each))
    while fits > 0:
        fits -= fits % 8 if fits > 16 else 0
        if _peak(backend, plan, kind, fits, bound) is not None:
            break
        fits = fits * 3 // 4 if fits > 1 else 0
    return max(fits, 0), needed


def _peak(backend: Backend, plan: Plan, kind: Kind, batch_size: int, bound: Mapping[ArrayName, Array]) -> int | None:
    """The peak memory of a step in bytes; None if there is not that much."""
    tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        program = record(plan, kind, batch_size, backend.devices)
        feed: dict[ArrayName, Any] = {
            name: backend.to_device(np.zeros(value.shape, value.dtype), value.device)
            for name, value in program.fed.items()
        }
        if backend.compile_step(program, bound) is None:
            feed |= {STEP: 0, **{rate_name(name): 0.0 for name in bound if name.role == "parameter"}}
            walk_step(cast(Backend, _WithoutUpdates(backend)), plan, kind, bound)(feed)
        return tracemalloc.get_traced_memory()[1] - before
    except MemoryError as error:
        traceback.clear_frames(error.__traceback__)
        return None
    finally:
        if not tracing:
            tracemalloc.stop()


class _WithoutUpdates:
    """A backend that skips updates, for trying a step."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def sgd_update(self, w: Any, v: Any, dw: Any, **_: float) -> Any:
        """Return what an update that skips no elements returns."""
        return self._backend.zeros((), "int64", w.device)
