"""Compiles kernels before they run, in several processes at once.

Within one process Numba compiles one kernel at a time. So before its first run a step rehearses: it reports which
kernels it will call, with which arguments. Those that are not on disk yet are compiled here and by helpers: processes
that write to the cache on disk, from which this one loads.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from numba.core.dispatcher import Dispatcher

from minialex.backend.hearing import hearer
from minialex_numba.runtime.jit import cache_folder
from minialex_numba.runtime.threads import Kernel, Launch, Threads, cores

FEW = 8
"""Kernels that make a helper worth its start-up time of about a second."""
MOST = 3
"""The most helpers; each takes some 250 MB."""
WORDS = "compiling kernels"

Job = tuple[Any, tuple[Any, ...]]
"""A kernel, and the types of its arguments."""


def prepare(threads: Threads, work: Callable[[], None]) -> None:
    """Compile the kernels that some work would call, and report progress to whoever listens.

    Args:
        threads: the threads on which the work runs its kernels
        work: is called once more than otherwise, so its other effects must not matter
    """
    jobs: dict[Job, None] = {}

    def note(launch: Launch) -> None:
        if job := missing(launch.kernel, launch.arguments):  # only the types: the arguments hold memory
            jobs[job] = None

    threads.rehearse(work, note)
    if jobs:
        compile_all(list(jobs), min(threads.count, cores()) - 1)


def missing(kernel: Kernel, arguments: tuple[Any, ...]) -> Job | None:
    """A kernel with the types of its arguments if it is compiled neither in this process nor on disk, else None."""
    if not isinstance(kernel, Dispatcher):
        return None
    kinds = tuple(kernel.typeof_pyval(argument) for argument in (0, 0, 0, *arguments))
    return None if kinds in kernel.overloads or _is_on_disk(kernel, kinds) else (kernel, kinds)


def _is_on_disk(kernel: Any, kinds: tuple[Any, ...]) -> bool:
    try:
        cache = kernel._cache
        return cache._index_key(kinds, kernel.targetctx.codegen()) in cache._cache_file._load_index()
    except Exception:  # no cache, a damaged one, or another Numba's: it is compiled, or loaded after all
        return False


def compile_all(jobs: list[Job], helpers: int) -> None:
    """Compile kernels, with at most `helpers` helpers."""
    queue = deque(sorted(jobs, key=lambda job: -_length(job[0])))  # longest first, so that all end together
    tell, helped = hearer(), [0]
    processes: list[subprocess.Popen[bytes]] = []
    with contextlib.suppress(OSError):
        for _ in range(min(helpers, MOST, len(jobs) // FEW) if cache_folder() and sys.executable else 0):
            processes.append(_start())
    waiters: list[threading.Thread] = []
    collecting = gc.isenabled()
    gc.disable()  # some 3 MB a kernel; to look for them would take a tenth of the time
    try:
        for process in processes:
            waiter = threading.Thread(target=_feed, args=(process, queue, helped), daemon=True)
            waiter.start()
            waiters.append(waiter)
        own = 0
        while queue or any(waiter.is_alive() for waiter in waiters):
            tell(WORDS, own + helped[0], len(jobs), "kernels")
            try:
                kernel, kinds = queue.popleft()
            except IndexError:  # helpers have the last ones, or one failed and puts its job back
                next(waiter for waiter in waiters if waiter.is_alive()).join(0.1)
                continue
            kernel.compile(kinds)
            own += 1
        tell(WORDS, len(jobs), len(jobs), "kernels")
    finally:
        if collecting:
            gc.enable()
        for process in processes:
            process.kill()
        for waiter in waiters:
            waiter.join()
        for process in processes:
            process.communicate()  # closes its pipes


def _length(function: Any) -> int:
    """A proxy of a kernel's compile time: the bytes of Python bytecode in it and in the parts that it names."""
    code = function.py_func.__code__
    named = (function.py_func.__globals__.get(name) for name in code.co_names)
    return len(code.co_code) + sum(_length(each) for each in named if isinstance(each, Dispatcher))


def _start() -> subprocess.Popen[bytes]:
    """Start a helper: a process with the same imports as this one."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", f"from {__name__} import serve; serve()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        process_group=0,  # keeps the terminal's Ctrl-C from it, which would end it while it imports
    )  # fmt: skip


def _feed(process: subprocess.Popen[bytes], queue: deque[Job], helped: list[int]) -> None:
    """Give a helper one kernel after another; one that it does not finish goes back to the queue."""
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            job = queue.popleft()
        except IndexError:
            return
        kernel, kinds = job
        try:
            pickle.dump((kernel.py_func.__module__, kernel.py_func.__qualname__, kinds), process.stdin)
            process.stdin.flush()
            finished = process.stdout.readline()
        except Exception:
            finished = b""
        if not finished:
            queue.appendleft(job)
            return
        helped[0] += 1


def serve() -> None:
    """Compile the kernels requested on standard input until it ends, and report each on standard output when done."""
    gc.disable()  # see `compile_all`
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the other process, whose end ends this one
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            module, name, kinds = pickle.load(sys.stdin.buffer)
            getattr(importlib.import_module(module), name).compile(kinds)
            os.write(1, b"done\n")
