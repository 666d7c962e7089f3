"""Signals are real ones, sent to this process and to forked workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from minialex.training.signals import StopRequest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends POSIX signals")


def send(number: int) -> None:
    """Send this process a signal; Python has handled it when this returns."""
    signal.raise_signal(number)


@pytest.mark.parametrize(
    ("number", "requested", "code"),
    [
        (signal.SIGTERM, "SIGTERM", 75),
        (signal.SIGHUP, "SIGHUP", 75),
        (signal.SIGXCPU, "SIGXCPU", 75),
        (signal.SIGUSR1, "SIGUSR1", 75),
        (signal.SIGINT, "Ctrl-C", 130),
    ],
)
def test_the_first_signal_asks(number: int, requested: str, code: int) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest("SIGUSR1") as stop:
        assert (stop.requested, stop.exit_code) == (None, 0)
        send(number)
        assert (stop.requested, stop.exit_code) == (requested, code)
        send(signal.SIGTERM)  # schedulers send it again and again
        assert stop.requested == requested
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert (stop.requested, stop.exit_code) == (requested, code)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_ctrl_c_after_a_request_ends_at_once(first: int) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        send(first)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert stop.requested == ("SIGTERM" if first == signal.SIGTERM else "Ctrl-C")
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_what_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            send(signal.SIGHUP)
        assert stop.requested is None
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_the_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGTERM)
    found: list[object] = []

    def work() -> None:
        with StopRequest() as stop:
            found.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(None, before)]


def test_a_forked_worker_ends_by_the_signal() -> None:
    code = """
import os, signal, time
from minialex.training.signals import StopRequest
ready, tell = os.pipe()
with StopRequest() as stop:
    worker = os.fork()
    if worker == 0:
        os.write(tell, b"x")  # a signal during the fork itself would be lost
        for _ in range(400):
            time.sleep(0.05)  # Python may see a signal late, but between two calls at the latest
        os._exit(1)
    os.read(ready, 1)
    os.kill(worker, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(worker, 0)[1]), stop.requested)
"""
    root = os.fspath(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{int(signal.SIGTERM)} None\n"
