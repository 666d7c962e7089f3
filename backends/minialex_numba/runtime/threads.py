"""Threads that share the work of a kernel.

A kernel takes ``(worker, begin, end, *arguments)`` and does items begin … end − 1 of its work. An item's result never
depends on the thread that does it, so results are bitwise the same for any number of threads. `worker` is the thread's
number, which selects its scratch memory. Numbers that belong together are passed as one plain tuple: Numba unpacks it
as fast as separate numbers, but a named tuple several times more slowly; kernels name the fields again.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from minialex.errors import ConfigurationError

Kernel = Callable[..., Any]


class Launch(NamedTuple):
    """A call of `Threads.run`."""

    kernel: Kernel
    items: int
    arguments: tuple[Any, ...]
    grain: int
    pieces: int | None


ALONE, SHORT = 1e-4, 4e-3
"""Seconds of work below which one thread does all of it, and below which each thread does a single piece."""


def cores() -> int:
    """Number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Work:
    """One kernel's items, handed out piece by piece to whoever asks."""

    def __init__(self, kernel: Kernel, items: int, pieces: int, arguments: tuple[Any, ...]) -> None:
        self.kernel, self.items, self.pieces, self.arguments = kernel, items, pieces, arguments
        self.next = itertools.count().__next__  # a single operation, so atomic under the GIL
        self.limit = pieces  # pieces from this one on are not handed out
        self.errors: list[BaseException] = []
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.wake: SimpleQueue[int] = SimpleQueue()

    def take_part(self, worker: int) -> None:
        """Do pieces until none are left."""
        kernel, items, pieces, arguments = self.kernel, self.items, self.pieces, self.arguments
        try:
            while (piece := self.next()) < self.limit:
                kernel(worker, piece * items // pieces, (piece + 1) * items // pieces, *arguments)
        except BaseException as error:
            self.errors.append(error)

    def help(self, worker: int) -> None:
        """Take part, and signal so before the first piece and after the last."""
        self.begun.append(worker)
        self.take_part(worker)
        self.ended.append(worker)
        self.wake.put(worker)


class Threads:
    """A fixed number of threads, including the caller's; the others wait for work and end with the process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._process = 0
        # by process: the work that the threads share; the weak reference vanishes with it, even after Ctrl-C
        self._shared: weakref.WeakValueDictionary[int, _Work] = weakref.WeakValueDictionary()
        self._seconds: dict[tuple[int, int], float] = {}
        # by Python thread: what a rehearsal reports to
        self._rehearsals: dict[int, Callable[[Launch], None]] = {}

    def run(self, kernel: Kernel, items: int, *arguments: Any, grain: int = 1, pieces: int | None = None) -> None:
        """Do all items of a kernel.

        Args:
            kernel: a compiled kernel, or any function with the same parameters
            items: number of items
            arguments: the kernel's, after the first three; tuples among them are plain tuples
            grain: the smallest number of items worth a piece of its own
            pieces: number of pieces to split the items into, instead of a few per thread
        """
        if items <= 0:
            return
        if self._rehearsals and (note := self._rehearsals.get(threading.get_ident())) is not None:
            note(Launch(kernel, items, arguments, grain, pieces))
            return
        if self.count == 1:  # no sharing, which takes 3 µs: a small network has 200 kernels per step
            for piece in range(pieces or 1):
                kernel(0, piece * items // (pieces or 1), (piece + 1) * items // (pieces or 1), *arguments)
            return
        if pieces is None:
            pieces = max(1, min(items // max(grain, 1), self._pieces(kernel, items)))
        began = time.perf_counter()
        work = _Work(kernel, items, pieces, arguments)
        process = os.getpid()
        try:
            # if another Python thread is computing, this one works alone
            if pieces == 1 or self._shared.setdefault(process, work) is not work:
                work.take_part(0)
            else:
                self._share(work, min(self.count, pieces) - 1)
        finally:  # Ctrl-C may come between any two steps, so look up what was done
            if self._shared.get(process) is work:
                del self._shared[process]
        seconds = time.perf_counter() - began
        self._seconds[id(kernel), items] = seconds * (self.count if pieces > 1 else 1)
        if work.errors:
            raise work.errors[0]

    def rehearse(self, work: Callable[[], None], note: Callable[[Launch], None]) -> None:
        """Do some work on this Python thread without running its kernels.

        Args:
            note: called instead with each launch
        """
        me = threading.get_ident()
        self._rehearsals[me] = note
        try:
            with np.errstate(all="ignore"):  # the code around kernels reads memory that none has written
                work()
        finally:
            del self._rehearsals[me]

    def _pieces(self, kernel: Kernel, items: int) -> int:
        """Number of pieces to split work into, by how long it took last time.

        Handing a piece to a thread takes a few microseconds, waking a thread a few tens.
        """
        seconds = self._seconds.get((id(kernel), items), math.inf)
        return 1 if seconds < ALONE else self.count if seconds < SHORT else 4 * self.count

    def _share(self, work: _Work, helpers: int) -> None:
        try:
            self._start()
            for worker in range(helpers):
                self._orders[worker].put(work)
            work.take_part(self.count - 1)
        except KeyboardInterrupt as error:
            work.errors.append(error)
        # Threads that begin from now on find nothing to do; those that have begun may still write to the arrays.
        while True:
            try:
                work.limit = 0
                while len(work.ended) < len(work.begun):
                    work.wake.get()
                return
            except KeyboardInterrupt as error:
                work.errors.append(error)

    def _start(self) -> None:
        if self._process == os.getpid():  # threads do not survive a fork
            return
        self._orders: list[SimpleQueue[_Work]] = [SimpleQueue() for _ in range(self.count - 1)]
        for worker, orders in enumerate(self._orders):
            threading.Thread(target=_serve, args=(worker, orders), name=f"minialex-{worker}", daemon=True).start()
        self._process = os.getpid()


def _serve(worker: int, orders: SimpleQueue[_Work]) -> None:
    while True:
        work = orders.get()
        work.help(worker)
        del work


MOST = 1024
"""More threads than any machine has cores are a slip of the keyboard."""


@lru_cache(maxsize=16)
def threads(count: int | None) -> Threads:
    """Get `count` threads, by default one per core; callers that ask for the same number share them."""
    if count is not None and count < 1:
        raise ConfigurationError(f"--threads must be at least 1, got {count}")
    if count is not None and count > MOST:
        raise ConfigurationError(f"--threads must be at most {MOST:,}, got {count:,}")
    return Threads(count or cores())
