"""What a device did during some work: for how long it computed at all, and which kernels took how long.

Two ways, since a machine may not allow the first:

- `traced`: the driver tells when every kernel and copy of the process began and ended, whoever asked for it, ours in
  a captured graph too (CUPTI, through PyTorch's profiler). Tracing makes asking slower but not the kernels, so their
  time in a traced step is set beside an untraced step's.
- `by_events`: an event before and one after everything that is asked of our runtime, while the device is held up so
  that the host is well ahead. It names what was asked for: a kernel with how many indices, a product or a convolution
  with its sizes. Each waits for the one before it, on whatever stream that was: it has the device for itself, so that
  its time is its own, and their sum is that of a step without two columns beside each other. What takes a few
  microseconds is told a little too large.

Both have run on a device (an H100, 2026-11-27), the second when what two streams did still overlapped in it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 30
HELD_UP = (500, 1 << 30)
"""How often so many bytes are cleared while the host asks for a step: 0.1 s and more."""

CATEGORIES = {"cuda": ("kernel", "gpu_memcpy", "gpu_memset"), "cpu": ("cpu_op",)}
"""Of the events in a trace: what a device does, and for a test without one what the processor does."""


@dataclass(frozen=True)
class Trace:
    """Seconds in which the device did anything, and what: rows of name, calls, microseconds, the longest first."""

    busy: float
    rows: list[dict[str, Any]]


def covered(intervals: Iterable[tuple[float, float]]) -> float:
    """How long at least one of some (begin, end) lasts: what overlaps, on several streams, counts once."""
    total, reached = 0.0, float("-inf")
    for begin, end in sorted(intervals):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def longest(found: Sequence[tuple[str, float]], steps: int) -> list[dict[str, Any]]:
    """The `LONGEST` of some (name, microseconds) by their sum, a step; the rest as one row."""
    sums: dict[str, list[float]] = {}
    for name, taken in found:
        sums.setdefault(name, []).append(taken)
    rows = sorted(((sum(times), len(times), name) for name, times in sums.items()), reverse=True)
    shown, rest = rows[:LONGEST], rows[LONGEST:]
    if rest:
        shown.append((sum(r[0] for r in rest), sum(r[1] for r in rest), f"{len(rest)} others"))
    return [{"name": n[:160], "calls": c / steps, "microseconds": round(t / steps, 2)} for t, c, n in shown]


def traced(run: Callable[[], object], steps: int = 1, kind: str = "cuda") -> Trace:
    """What the device (``"cuda"``, or for a test ``"cpu"``) did during some work of so many steps.

    Raises
    ------
    ImportError
        Without PyTorch.
    RuntimeError
        If the driver traced nothing.
    """
    from torch.profiler import ProfilerActivity, profile

    activity = {"cuda": ProfilerActivity.CUDA, "cpu": ProfilerActivity.CPU}[kind]
    with profile(activities=[activity]) as trace:
        run()
    with tempfile.TemporaryDirectory() as folder:  # PyTorch's own list leaves out what no operation of it asked for
        path = Path(folder) / "trace.json"
        trace.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    events = [event for event in events if event.get("cat") in CATEGORIES[kind] and "dur" in event]
    if not events:
        raise RuntimeError("the driver traced no kernel: how busy the device is cannot be told here")
    busy = covered((e["ts"], e["ts"] + e["dur"]) for e in events)
    return Trace(busy / 1e6, longest([(e["name"].partition("[abi:")[0], e["dur"]) for e in events], steps))


@contextmanager
def watching(runtime: Any) -> Iterator[list[tuple[str, Any, Any]]]:
    """Everything that is asked of a `minialex_cuda.runtime.device.DeviceRuntime`: (what, event before, event after).

    One thing after another, on all streams.
    """
    import cupy

    asked: list[tuple[str, Any, Any]] = []

    def watched(name: str, told: Callable[..., str]) -> Callable[..., None]:
        original = getattr(runtime, name)

        def call(stream: Any, *arguments: Any, **options: Any) -> None:
            with cupy.cuda.Device(stream.index):
                before, after = cupy.cuda.Event(), cupy.cuda.Event()
                if asked:
                    stream.stream.wait_event(asked[-1][2])
                before.record(stream.stream)
                original(stream, *arguments, **options)
                after.record(stream.stream)
            asked.append((told(*arguments), before, after))

        return call

    def launch(kernel: Any, count: Any, *rest: Any) -> str:
        size = f"{count:,}" if isinstance(count, int) else f"{count.blocks} blocks of {count.threads}"
        return f"{kernel.name}, {size}"

    def multiply(a: Any, b: Any, out: Any, product: Any) -> str:
        sides = "T" if product.transpose_a else "N", "T" if product.transpose_b else "N"
        return f"product {'·'.join(sides)}, {product.m:,} x {product.n:,} x {product.k:,}, {product.precision}"

    def convolve(it: Any, *rest: Any) -> str:
        return f"{it.kind}, {it.C} x {it.H} x {it.W} to {it.K} x {it.P} x {it.Q} by {it.R} x {it.S}, {it.precision}"

    def copy(source: Any, target: Any) -> str:
        return f"copy, {source.nbytes:,} bytes"

    def clear(target: Any) -> str:
        return f"clear, {target.nbytes:,} bytes"

    names = {"launch": launch, "multiply": multiply, "convolve": convolve, "copy": copy, "clear": clear}
    for name, told in names.items():
        setattr(runtime, name, watched(name, told))
    try:
        yield asked
    finally:
        for name in names:
            delattr(runtime, name)


def by_events(runtime: Any, stream: Any, run: Callable[[], object], steps: int = 1) -> list[dict[str, Any]]:
    """What was asked of our runtime during some work of so many steps that no graph replays: rows as a `Trace`'s.

    `stream` is where that work begins: it waits for something that takes longer than the asking does.
    """
    import cupy

    times, nbytes = HELD_UP
    ahead = runtime.stream("cuda:0")
    block = runtime.flat(runtime.allocate(nbytes, "cuda:0", ahead), 0, nbytes, "uint8")
    runtime.synchronize(stream)
    for _ in range(times):
        runtime.clear(ahead, block)
    runtime.wait(stream, runtime.record(ahead))
    with watching(runtime) as asked:
        run()
        cupy.cuda.runtime.deviceSynchronize()
    return longest([(what, 1e3 * cupy.cuda.get_elapsed_time(*events)) for what, *events in asked], steps)
