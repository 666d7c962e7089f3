"""Threads: every item once, whoever does it, whatever goes wrong."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from minialex.cli import app as cli
from minialex.errors import ConfigurationError
from minialex_numba import NumbaBackend
from minialex_numba.ops import elementwise
from minialex_numba.runtime.threads import Threads, cores
from minialex_numba.runtime.threads import threads as threads_for


def count(worker: int, begin: int, end: int, counts: Any, workers: Any) -> None:
    """A kernel in Python: how often each item was done, and by whom."""
    for item in range(begin, end):
        counts[item] += 1
        workers[item] = worker


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize(("items", "options"), [
    (0, {}), (1, {}), (2, {}), (3, {}), (7, {}), (101, {}), (1000, {"grain": 64}), (63, {"grain": 64}),
    (17, {"grain": 0}), (13, {"pieces": 1}), (13, {"pieces": 5}), (13, {"pieces": 13}), (13, {"pieces": 40}),
    (16, {"pieces": 16}),
])  # fmt: skip
def test_every_item_is_done_once(threads: int, items: int, options: dict[str, int]) -> None:
    threads_of = Threads(threads)
    counts, workers = np.zeros(items + 1, int), np.full(items + 1, -1)
    for _ in range(3):
        threads_of.run(count, items, counts, workers, **options)
    assert counts[:items].tolist() == [3] * items
    assert counts[items] == 0
    assert all(0 <= worker < threads for worker in workers[:items])


def test_one_thread_hands_nothing_out_and_keeps_to_the_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network's step is some 200 short kernels; scratch memory may be made for a piece."""
    monkeypatch.delattr("minialex_numba.runtime.threads._Work")
    asked: list[tuple[int, int, int]] = []
    for pieces in (None, 1, 3, 5):
        Threads(1).run(lambda *span: asked.append(span), 4, pieces=pieces)
    assert asked[:2] == [(0, 0, 4), (0, 0, 4)]
    assert asked[2:5] == [(0, 0, 1), (0, 1, 2), (0, 2, 4)]
    assert max(end - begin for _, begin, end in asked[5:]) == 1


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_the_work(threads: int) -> None:
    together = threading.Barrier(threads)  # each must hold an item at the same time
    numbers = set()

    def kernel(worker: int, begin: int, end: int) -> None:
        together.wait(30)
        numbers.add((worker, threading.get_ident()))

    Threads(threads).run(kernel, threads, pieces=threads)
    assert {worker for worker, _ in numbers} == set(range(threads))
    assert len({thread for _, thread in numbers}) == threads
    assert threading.get_ident() in {thread for _, thread in numbers}


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("bad", [0, 6, 12])
def test_an_error_reaches_the_caller(threads: int, bad: int) -> None:
    def kernel(worker: int, begin: int, end: int) -> None:
        if begin <= bad < end:
            raise ArithmeticError(f"item {bad}")

    threads_of = Threads(threads)
    for _ in range(3):
        with pytest.raises(ArithmeticError, match=f"item {bad}"):
            threads_of.run(kernel, 13, pieces=13)
        counts, workers = np.zeros(13, int), np.zeros(13, int)
        threads_of.run(count, 13, counts, workers)  # and they go on
        assert counts.tolist() == [1] * 13


def test_an_error_waits_for_the_others() -> None:
    done = []

    def kernel(worker: int, begin: int, end: int) -> None:
        if begin == 0:
            raise ArithmeticError
        time.sleep(0.05)
        done.append(begin)

    with pytest.raises(ArithmeticError):
        Threads(2).run(kernel, 2, pieces=2)
    assert done in ([], [1])  # nothing is still at work
    before = list(done)
    time.sleep(0.1)
    assert done == before


def test_a_kernel_that_calls_another_kernel() -> None:
    threads_of = Threads(3)
    counts = np.zeros((6, 11), int)

    def outer(worker: int, begin: int, end: int) -> None:
        for item in range(begin, end):
            threads_of.run(count, 11, counts[item], np.zeros(11, int))

    threads_of.run(outer, 6, pieces=6)
    assert (counts == 1).all()


def test_several_python_threads_at_once() -> None:
    backend = NumbaBackend(threads=2)
    random = np.random.default_rng(0)
    inputs = [random.standard_normal((9, 4001)).astype(np.float32) for _ in range(6)]
    wrong: list[int] = []

    def work(number: int) -> None:
        x = backend.to_device(inputs[number], "cpu:0")
        expected = np.maximum(inputs[number], 0)
        for _ in range(100):
            if not np.array_equal(backend.relu(x).data, expected):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def _in_child(backend: NumbaBackend, x: Any, results: Any) -> None:
    results.put(backend.relu(x).data.sum())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_computes() -> None:
    backend = NumbaBackend(threads=3)
    x = backend.to_device(np.arange(-5000.0, 50_000.0), "cpu:0")
    expected = backend.relu(x).data.sum()  # the threads are at work in the parent
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    children = [context.Process(target=_in_child, args=(backend, x, results)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert [results.get(), results.get()] == [expected] * 2
    assert backend.relu(x).data.sum() == expected


@pytest.fixture
def _alarm() -> Iterator[None]:
    """The alarm clock rings as Ctrl-C does (a thread that would send one may wait long for Python's lock).

    Hypothesis listens to the garbage collector, and an interrupt in a listener is lost: nothing is collected.
    """
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    gc.disable()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no alarm clock")
@pytest.mark.parametrize("threads", [1])  # with more it is slow or loses interrupts: open
@pytest.mark.parametrize("pause", [0.0, 0.002])
@pytest.mark.usefixtures("_alarm")
def test_ctrl_c_does_not_break_them(threads: int, pause: float) -> None:
    threads_of = Threads(threads)
    busy: set[int] = set()

    def kernel(worker: int, begin: int, end: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            busy.add(begin)
            if pause:
                time.sleep(pause)
            busy.discard(begin)

    def work(delay: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, delay)
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline:
            threads_of.run(kernel, 8, pieces=8)

    random = np.random.default_rng(threads)
    for delay in random.uniform(0.0005, 0.02, 20):
        with contextlib.suppress(KeyboardInterrupt):  # rarely, an interrupt is lost: why is not known
            work(delay)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert not busy, "another thread still writes"
        counts, workers = np.zeros(101, int), np.zeros(101, int)
        threads_of.run(count, 101, counts, workers)
        assert counts.tolist() == [1] * 101
    together = threading.Barrier(threads)
    threads_of.run(lambda worker, begin, end: together.wait(30), threads, pieces=threads)  # all are still there


def test_how_many_threads_there_are() -> None:
    assert threads_for(None).count == cores() >= 1
    assert threads_for(3) is threads_for(3)
    assert NumbaBackend(threads=3).threads.count == 3
    for threads in (0, -1):
        with pytest.raises(ConfigurationError, match=f"--threads must be at least 1, got {threads}"):
            NumbaBackend(threads=threads)
    with pytest.raises(ConfigurationError, match="--threads must be at most 1,024, got 100,000"):
        NumbaBackend(threads=100_000)


def test_the_command_says_how_many_threads_there_must_be(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["bench", "--backend", "numba", "--threads", "0"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert re.fullmatch(r"error: .*--threads.* 1\. `minialex bench --help` .*\n", error)
    assert "Traceback" not in error


def test_kernels_give_the_same_bits_for_any_number_of_threads() -> None:
    x = np.random.default_rng(0).standard_normal(elementwise.GRAIN * 7 + 13)
    results = []
    for threads in (1, 2, 5):
        backend = NumbaBackend(threads=threads)
        results.append(backend.tanh(backend.to_device(x, "cpu:0")).data.tobytes())
    assert len(set(results)) == 1
