"""Times each of cuDNN's plans, on a stream and in memory of its own.

Plans are captured in CUDA graphs of several calls, since a call takes longer on the host than a small convolution on
the device, and are timed by events. Plans are built one after another, called once, and timed for as long as they may
still be the fastest.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from minialex_cuda.runtime.cudnn import ROOM, Plans, Ready, Timed, handle
from minialex_cuda.runtime.protocol import Convolution

CALLS, TRIES, ENOUGH = 5, 3, 10_000
"""Calls per graph; replays, of which the fastest counts; microseconds after which no further replay begins."""
SECONDS = 2.0
"""After this long no further plan of a convolution is tried: some take a second, or as long to build."""
HOPELESS = 1.25
"""A plan that took longer than this factor times the fastest so far is not tried again."""


def sizes(it: Convolution) -> tuple[int, int, int]:
    """Counts of numbers in the operands and the result, in the order in which the kind names them."""
    x, w, y = it.N * it.C * it.H * it.W, it.K * it.C * it.R * it.S, it.N * it.K * it.P * it.Q
    return {"fprop": (x, w, y), "dgrad": (y, w, x), "wgrad": (y, x, w)}[it.kind]


class Timer:
    """Times plans on the current device. Waits for its work, so it is never used during a capture."""

    def __init__(self, cudnn: Any) -> None:
        self._refused = (cudnn.cudnnGraphNotSupportedError, RuntimeError)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._handle = handle(cudnn)
        cudnn.set_stream(handle=self._handle, stream=self._stream.ptr)

    def __call__(self, plans: Plans, most: int) -> list[Timed]:
        """See `minialex_cuda.runtime.cudnn.Time`."""
        cupy.cuda.runtime.deviceSynchronize()  # concurrent work would be timed, too
        try:
            with self._stream:
                return self._timed(plans, most)
        finally:
            cupy.get_default_memory_pool().free_all_blocks(stream=self._stream)

    def _timed(self, plans: Plans, most: int) -> list[Timed]:
        kind = np.uint16 if plans.convolution.precision == "bfloat16" else np.float32
        it = plans.convolution
        operands = [self._random(size, kind) for size in sizes(it)]
        bias = [self._no_numbers(it.K, kind)] if it.bias else []
        found: list[Timed] = []
        began = time.perf_counter()
        for ready in plans.ready():
            if found and time.perf_counter() - began > SECONDS:
                break
            if found and ready.workspace > ROOM:
                continue
            quickest = min((one.microseconds for one in found), default=float("inf"))
            workspace = cupy.empty(max(ready.workspace, 1), cupy.uint8)
            try:
                taken = self._microseconds(plans, ready, [*operands, workspace, *bias], quickest)
            except self._refused:  # suitable, but does not run
                continue
            if it.bias and not self._kept(operands[2]):
                continue
            found.append(Timed(ready, taken))
            if len(found) == most:
                break
        return found

    def _no_numbers(self, size: int, kind: Any) -> Any:
        made = cupy.empty(size, kind)
        made.set(np.full(size, 0x7FC0, kind) if kind is np.uint16 else np.full(size, np.nan, kind), stream=self._stream)
        return made

    def _kept(self, out: Any) -> bool:
        """Whether a NaN in the bias has come out as NaN: an error in training must not be hidden."""
        found = out[:64].get(stream=self._stream)
        return bool(np.all((found & 0x7FFF) > 0x7F80 if found.dtype == np.uint16 else np.isnan(found)))

    def _random(self, size: int, kind: Any) -> Any:
        """Random numbers, since with zeros a device draws less power and is faster: a few, copied repeatedly."""
        runtime = cupy.cuda.runtime
        numbers = np.random.default_rng(0).standard_normal(min(size, 1 << 16), np.float32)
        numbers = (numbers.view(np.uint32) >> 16).astype(np.uint16) if kind is np.uint16 else numbers
        made = cupy.empty(size, kind)
        made[: len(numbers)].set(numbers, stream=self._stream)
        done, nbytes = numbers.nbytes, made.nbytes
        while done < nbytes:
            many = min(done, nbytes - done)
            to_device = runtime.memcpyDeviceToDevice
            runtime.memcpyAsync(made.data.ptr + done, made.data.ptr, many, to_device, self._stream.ptr)
            done += many
        return made

    def _microseconds(self, plans: Plans, ready: Ready, arrays: list[Any], quickest: float) -> float:
        """Microseconds of one call."""
        stream = self._stream
        addresses = [array.data.ptr for array in arrays]

        def call() -> None:
            plans.execute(self._handle, ready, *addresses)

        first = self._between(call)  # includes loading code for it
        if first > 4 * HOPELESS * quickest:
            return round(first, 2)
        stream.begin_capture()
        try:
            for _ in range(CALLS):
                call()
        finally:
            graph = stream.end_capture()
        best, spent = float("inf"), 0.0
        for _ in range(TRIES):
            best = min(best, self._between(lambda: graph.launch(stream=stream)) / CALLS)
            spent += CALLS * best
            if best > HOPELESS * quickest or spent > ENOUGH:
                break
        return round(best, 2)

    def _between(self, work: Callable[[], object]) -> float:
        """Microseconds that some work takes on the stream."""
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        begin.record(self._stream)
        work()
        end.record(self._stream)
        end.synchronize()
        return 1e3 * float(cupy.cuda.get_elapsed_time(begin, end))
