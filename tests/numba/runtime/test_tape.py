"""Recorded launches, replayed without Python: the same numbers, in order, on any number of threads."""

# mypy: disable-error-code="no-untyped-def"
from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minialex.backend.pretend import HostArray
from minialex.backend.program import ArrayName
from minialex_numba.runtime.jit import kernel
from minialex_numba.runtime.tape import Tape, split, whole
from minialex_numba.runtime.threads import Launch, Threads

NAME = ArrayName(role="images")


@kernel
def everything_kernel(worker, begin, end, x, rows, square, number, small, large, flag, y):
    (row, first, step) = rows
    for i in range(begin, end):
        value = x[i] * number + row[first + i * step] + square[i % 2, 1] + small
        y[i] = value + 1 if flag and large > np.uint64(1 << 40) else value


@kernel
def add_kernel(worker, begin, end, x, y):
    """y[i] += the sum of x: wrong if a thread has not ended the phase before."""
    total = 0
    for number in x:
        total += number
    for i in range(begin, end):
        y[i] += total


@kernel
def copy_kernel(worker, begin, end, x, y):
    for i in range(begin, end):
        y[i] = x[i]


@kernel
def divide_kernel(worker, begin, end, x, y):
    for i in range(begin, end):
        y[i] = 1 // x[i]


def launched(kernel: Any, items: int, *arguments: Any, grain: int = 1, pieces: int | None = None) -> Launch:
    return Launch(kernel, items, arguments, grain, pieces)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_entry_takes_what_python_passes(threads: int, dtype: str) -> None:
    random = np.random.default_rng(0)
    x, row = random.normal(size=(2, 50)).astype(dtype)
    square = random.normal(size=(2, 3)).astype(dtype)[:, ::2]  # neither contiguous
    wanted, found = np.zeros((2, 25), dtype)
    arguments = x, (row, 0, 2), square, np.dtype(dtype).type(3), 2.5, np.uint64(1 << 60), True
    everything_kernel(0, 0, 25, *arguments, wanted)
    launch = launched(everything_kernel, 25, *arguments, found)
    Tape(Threads(threads), [split(launch, threads)], {}).replay({})
    assert found.any()
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_a_phase_begins_when_the_one_before_has_ended(threads: int) -> None:
    """A hundred phases, each of which reads all that the one before wrote; again and again."""
    size = 20_000  # long enough for the other threads to take part
    arrays = [np.zeros(size, np.int64), np.zeros(size, np.int64)]
    phases = [split(launched(add_kernel, size, arrays[i % 2], arrays[1 - i % 2]), threads) for i in range(100)]
    tape = Tape(Threads(threads), phases, {})
    numbers = [1, 0]
    for i in range(100):
        numbers[1 - i % 2] = (numbers[1 - i % 2] + size * numbers[i % 2]) % (1 << 64)
    for _ in range(30):
        arrays[0][:], arrays[1][:] = 1, 0
        tape.replay({})
        for array, number in zip(arrays, numbers, strict=True):
            assert (array.view(np.uint64) == number).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_strand_is_one_threads(threads: int) -> None:
    """Two columns side by side: within each, launches follow one another."""
    columns = [[np.ones(4, np.int64), np.zeros(4, np.int64)] for _ in range(2)]
    strands = [
        [part for i in range(7) for part in whole(launched(add_kernel, 4, pair[i % 2], pair[1 - i % 2], pieces=2))]
        for pair in columns
    ]
    Tape(Threads(threads), [strands], {}).replay({})
    wanted = [np.ones(4, np.int64), np.zeros(4, np.int64)]
    for i in range(7):
        for begin in (0, 2):
            wanted[1 - i % 2][begin : begin + 2] += wanted[i % 2].sum()
    for pair in columns:
        np.testing.assert_array_equal(pair, wanted)


def test_the_feed_may_lie_elsewhere_each_time() -> None:
    given, found = HostArray(np.arange(6), "cpu:0"), np.zeros(6, np.int64)
    tape = Tape(Threads(2), [split(launched(copy_kernel, 6, given.data.reshape(-1), found), 2)], {NAME: given})
    for data in (given.data, np.arange(10, 16), np.arange(24)[::4], np.arange(12).reshape(2, 6)[1:]):
        tape.replay({NAME: HostArray(data, "cpu:0")})
        np.testing.assert_array_equal(found, data.reshape(-1))


def test_an_error_in_a_kernel_is_not_passed_over() -> None:
    x, y = np.array([1, 0, 1]), np.zeros(3, np.int64)
    tape = Tape(Threads(2), [split(launched(divide_kernel, 3, x, y), 2)], {})
    with pytest.raises(RuntimeError, match="divide_kernel failed in a compiled step"):
        tape.replay({})
    x[:] = 1
    tape.replay({})
    assert y.tolist() == [1, 1, 1]


def test_two_python_threads_replay_at_once() -> None:
    """One has the helping threads, the other works alone."""
    threads, wrong = Threads(2), []

    def work() -> None:
        arrays = [np.zeros(8, np.int64), np.zeros(8, np.int64)]
        tape = Tape(threads, [split(launched(add_kernel, 8, arrays[0], arrays[1]), 2) for _ in range(50)], {})
        for _ in range(200):
            arrays[0][:], arrays[1][:] = 1, 0
            tape.replay({})
            if arrays[1].tolist() != [400] * 8:
                wrong.append(arrays[1].copy())

    beside = [threading.Thread(target=work) for _ in range(3)]
    for thread in beside:
        thread.start()
    for thread in beside:
        thread.join()
    assert not wrong


FROM_DISK = """
import numpy as np
from numba.core import event
from minialex_numba.ops.elementwise import copy_kernel
from minialex_numba.runtime.tape import Tape, split
from minialex_numba.runtime.threads import Launch, Threads

x, y = np.arange(8.0), np.zeros(8)
with event.install_recorder("numba:compile") as compiled:
    launch = Launch(copy_kernel, 8, (8, (x, 0, 8), (y, 0, 8)), 1, None)
    Tape(Threads(2), [split(launch, 2)], {}).replay({})
assert x.tolist() == y.tolist()
print(len(compiled.buffer))
"""


def test_entries_are_kept_on_disk(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    counts = [
        int(subprocess.run([sys.executable, "-c", FROM_DISK], env=environment, check=True, capture_output=True).stdout)
        for _ in range(2)
    ]
    assert counts[0] > 0
    assert counts[1] == 0
