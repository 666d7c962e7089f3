"""How much of the time a device computes, by what its driver traces (CUPTI, through PyTorch's profiler).

The driver tells when every kernel and copy of the process began and ended, whoever asked for it: ours too. Tracing
makes asking slower but not the kernels, so their time in a traced step is set beside an untraced step's. **Not yet run
on a device.**
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """How long at least one of some (begin, end) lasts: what overlaps, on several streams, counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def busy_seconds(run: Callable[[], object], kind: str = "cuda") -> float:
    """Seconds of some work in which the device (``"cuda"``, or for a test ``"cpu"``) did anything.

    Raises
    ------
    ImportError
        Without PyTorch.
    RuntimeError
        If the driver traced nothing.
    """
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    activity, device = {
        "cuda": (ProfilerActivity.CUDA, DeviceType.CUDA),
        "cpu": (ProfilerActivity.CPU, DeviceType.CPU),
    }[kind]
    with profile(activities=[activity]) as traced:
        run()
    events: list[Any] = [event for event in traced.events() if event.device_type == device]
    found = covered((e.time_range.start, e.time_range.end) for e in events if not e.is_user_annotation)
    if not found:
        raise RuntimeError("the driver traced no kernel: how busy the device is cannot be told here")
    return found / 1e6
