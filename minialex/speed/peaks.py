"""Measures the machine's peak: how fast it multiplies matrices and how fast it copies memory.

Every floor (`minialex.speed.roofline`) is computed from two rates. Each is the best of several methods and tries:

- multiply-adds per second: a matrix product by NumPy's BLAS, and one by the backend's own `linear`;
- bytes per second, read plus written: a copy by as many threads as are used, and the backend's own `scale`.

The host's part runs in a process of its own, because BLAS fixes its number of threads when it is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from minialex.backend.protocol import Backend
from minialex.errors import ResourceError
from minialex.speed.roofline import Peaks

TRIES = 5
SIDE = 2048  # rows and columns of the operands
COPIED = 1 << 28  # bytes, more than most caches hold
BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best(run: Callable[[], object], tries: int = TRIES) -> float:
    """Seconds of the fastest of several tries, after one that does not count."""
    seconds = []
    for _ in range(1 + tries):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return min(seconds[1:])


def measure(backend: Backend, device: str, threads: int | None, dtype: str) -> Peaks:
    """The best rates of the host and of a backend's own operations.

    Args:
        device: the backend's device
        threads: number of threads to use; None: one per core
        dtype: ``"float32"`` or ``"float64"``

    Raises:
        ResourceError: If the process that measures the host fails.
    """
    host, own = _host_in_a_process(threads, dtype), _of_backend(backend, device, dtype)
    return Peaks(max(host.multiply_adds, own.multiply_adds), max(host.bytes, own.bytes))


def _of_backend(backend: Backend, device: str, dtype: str) -> Peaks:
    x = backend.zeros((SIDE, SIDE), dtype, device)
    b = backend.zeros((SIDE,), dtype, device)
    wide = backend.zeros((COPIED // np.dtype(dtype).itemsize,), dtype, device)

    def product() -> None:
        backend.linear(x, x, b)
        backend.synchronize(device)

    def copy() -> None:
        backend.scale(wide, 2.0)
        backend.synchronize(device)

    return Peaks(SIDE**3 / best(product), 2 * COPIED / best(copy))


def _host_in_a_process(threads: int | None, dtype: str) -> Peaks:
    variables = {} if threads is None else dict.fromkeys(BLAS_THREADS, str(threads))
    command = [sys.executable, "-m", "minialex.speed.peaks", str(threads or cores()), dtype]
    ended = subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)
    if ended.returncode:
        reason = (ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[-1]
        raise ResourceError(f"the machine's peak could not be measured ({reason}); leave it out with --no-floors")
    return Peaks(*json.loads(ended.stdout))


def of_host(threads: int, dtype: str) -> Peaks:
    """The host's rates with NumPy: BLAS with the threads that it was loaded with, copies with `threads` threads."""
    a = np.ones((SIDE, SIDE), dtype)
    source = np.ones(COPIED, np.uint8)
    target = np.zeros_like(source)
    pieces = [slice(i * COPIED // threads, (i + 1) * COPIED // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:  # NumPy releases the GIL while it copies

        def copy() -> None:
            for _ in pool.map(lambda piece: np.copyto(target[piece], source[piece]), pieces):
                pass

        return Peaks(SIDE**3 / best(lambda: a @ a), 2 * COPIED / best(copy))


if __name__ == "__main__":
    peaks = of_host(int(sys.argv[1]), sys.argv[2])
    print(json.dumps([peaks.multiply_adds, peaks.bytes]))
