"""Threads that share the work of a kernel.

A kernel takes ``(worker, begin, end, *arguments)`` and does the items begin … end − 1 of its work; which thread does
an item never changes its result, so results are the same bits for any number of threads. `worker` numbers the
threads, for scratch memory of their own. What belongs together is one argument, a plain tuple: Numba takes those from
Python as quickly as their numbers one by one, and named ones several times more slowly; kernels give them names.
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
from typing import Any

import numpy as np

from minialex.errors import ConfigurationError

Kernel = Callable[..., Any]

ALONE, SHORT = 1e-4, 4e-3
"""Seconds of work below which one thread does it alone, and below which each thread does one piece."""


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Work:
    """One kernel's items, handed out piece by piece to whoever asks."""

    def __init__(self, kernel: Kernel, items: int, pieces: int, arguments: tuple[Any, ...]) -> None:
        self.kernel, self.items, self.pieces, self.arguments = kernel, items, pieces, arguments
        self.next = itertools.count().__next__  # handing out is one operation under Python's lock
        self.limit = pieces  # from which piece on none is handed out
        self.errors: list[BaseException] = []
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.wake: SimpleQueue[int] = SimpleQueue()

    def take_part(self, worker: int) -> None:
        """Do pieces until none is left."""
        kernel, items, pieces, arguments = self.kernel, self.items, self.pieces, self.arguments
        try:
            while (piece := self.next()) < self.limit:
                kernel(worker, piece * items // pieces, (piece + 1) * items // pieces, *arguments)
        except BaseException as error:
            self.errors.append(error)

    def help(self, worker: int) -> None:
        """Take part, and say so: before the first piece, and after the last."""
        self.begun.append(worker)
        self.take_part(worker)
        self.ended.append(worker)
        self.wake.put(worker)


class Threads:
    """A number of threads, the caller's among them; the others wait for work and end with the process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._process = 0
        # by process: the work that the threads share; a reference that goes with it, however Ctrl-C ends it
        self._shared: weakref.WeakValueDictionary[int, _Work] = weakref.WeakValueDictionary()
        self._seconds: dict[tuple[int, int], float] = {}
        # by Python thread: what a rehearsal tells
        self._rehearsals: dict[int, Callable[[Kernel, tuple[Any, ...]], None]] = {}

    def run(self, kernel: Kernel, items: int, *arguments: Any, grain: int = 1, pieces: int | None = None) -> None:
        """Do all items of a kernel.

        Args:
            kernel: a compiled kernel, or any function of the same parameters
            items: how many there are
            arguments: the kernel's, after the first three; tuples among them are plain ones
            grain: the smallest number of items worth a piece of its own
            pieces: how many pieces to cut them into, instead of some for each thread
        """
        if items <= 0:
            return
        if self._rehearsals and (note := self._rehearsals.get(threading.get_ident())) is not None:
            note(kernel, arguments)
            return
        if self.count == 1:  # nothing is shared, and handing out takes 3 µs: a small network has 200 kernels a step
            for piece in range(pieces or 1):
                kernel(0, piece * items // (pieces or 1), (piece + 1) * items // (pieces or 1), *arguments)
            return
        if pieces is None:
            pieces = max(1, min(items // max(grain, 1), self._pieces(kernel, items)))
        began = time.perf_counter()
        work = _Work(kernel, items, pieces, arguments)
        process = os.getpid()
        try:
            # another Python thread may be computing: then this one works alone
            if pieces == 1 or self._shared.setdefault(process, work) is not work:
                work.take_part(0)
            else:
                self._share(work, min(self.count, pieces) - 1)
        finally:  # Ctrl-C may come between any two steps, so what was done is looked up
            if self._shared.get(process) is work:
                del self._shared[process]
        seconds = time.perf_counter() - began
        self._seconds[id(kernel), items] = seconds * (self.count if pieces > 1 else 1)
        if work.errors:
            raise work.errors[0]

    def rehearse(self, work: Callable[[], None], note: Callable[[Kernel, tuple[Any, ...]], None]) -> None:
        """Do some work of this Python thread without its kernels.

        Args:
            note: told each kernel, and its arguments after the first three, instead
        """
        me = threading.get_ident()
        self._rehearsals[me] = note
        try:
            with np.errstate(all="ignore"):  # what is around the kernels meets memory that none of them wrote
                work()
        finally:
            del self._rehearsals[me]

    def _pieces(self, kernel: Kernel, items: int) -> int:
        """Into how many pieces to cut work, by how long it took last time.

        Handing a piece to a thread takes some microseconds, waking a thread some tens of them.
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
        # Whoever begins from now on finds nothing to do; those that have begun may still write into the arrays.
        while True:
            try:
                work.limit = 0
                while len(work.ended) < len(work.begun):
                    work.wake.get()
                return
            except KeyboardInterrupt as error:
                work.errors.append(error)

    def _start(self) -> None:
        if self._process == os.getpid():  # the threads of a process do not follow it through a fork
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


@lru_cache(maxsize=16)
def threads(count: int | None) -> Threads:
    """So many threads, by default one a core; the same ones for all who ask for as many."""
    if count is not None and count < 1:
        raise ConfigurationError(f"--threads must be at least 1, got {count}")
    return Threads(count or cores())
