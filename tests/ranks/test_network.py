"""Two ranks on two "machines", network namespaces of this one, whose link is slow or breaks; needs root."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ADDRESSES = "10.177.0.1", "10.177.0.2"

START = "import sys; from minialex.ranks import launch; sys.exit(launch.start(2, sys.argv[1], sys.argv[2:]))"

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="network namespaces are Linux's")


def ip(*words: str) -> str:
    """Call the program of that name; what it prints."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Give what starts two ranks, each in a namespace of its own, the launcher in the first."""
    pytest.importorskip("mpi4py", reason="no mpi4py")
    names = [f"mx-{address}" for address in ADDRESSES]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "mxeth0", "netns", names[0], "type", "veth", "peer", "name", "mxeth0", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "link", "set", "mxeth0", "addrgenmode", "none")  # an address of IPv6 is not ready at once
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "mxeth0")
            for device in ("lo", "mxeth0"):
                ip("-n", name, "link", "set", device, "up")
    except (OSError, subprocess.CalledProcessError) as error:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        pytest.skip(f"no network namespaces here: {error}")
    for name in names:
        while "LOWER_UP" not in ip("-n", name, "link", "show", "mxeth0"):
            time.sleep(0.05)
    environment = {
        **os.environ, "MINIALEX_TEST_FOLDER": str(tmp_path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "backends", HERE))),
        "HYDRA_LAUNCHER": "ssh", "HYDRA_LAUNCHER_EXEC": str(HERE / "netns_ssh"),
        "UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "mxeth0",  # namespaces share memory, machines do not
    }  # fmt: skip
    started: list[subprocess.Popen[str]] = []

    def run(*words: object) -> subprocess.Popen[str]:
        started.append(
            subprocess.Popen(
                ["ip", "netns", "exec", names[0], sys.executable, "-c", START, ",".join(ADDRESSES), *map(str, words)],
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
                cwd=tmp_path,
            )
        )
        return started[-1]

    yield run
    for name in names:
        pids = subprocess.run(["ip", "netns", "pids", name], check=True, capture_output=True, text=True).stdout
        for pid in map(int, pids.split()):
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, signal.SIGKILL)
        ip("netns", "del", name)
    for process in started:
        process.communicate()


def test_a_slow_link_only_takes_longer(machines: Callable[..., subprocess.Popen[str]]) -> None:
    slow = ["tc", "qdisc", "add", "dev", "mxeth0", "root", "tbf", "rate", "10mbit", "burst", "32kb", "latency", "1s"]
    try:
        subprocess.run(["ip", "netns", "exec", f"mx-{ADDRESSES[0]}", *slow], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no slow links here: {error}")
    process = machines("tiny_ranks", "none", 10)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "done\n"), err


def test_a_link_that_breaks_ends_all(machines: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    process = machines("tiny_ranks", "signal", 3)
    until = time.monotonic() + 60
    while not all((tmp_path / f"{rank}.pid").is_file() for rank in range(2)):
        assert time.monotonic() < until
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    ip("-n", f"mx-{ADDRESSES[1]}", "link", "set", "mxeth0", "down")
    began = time.monotonic()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 6
    assert time.monotonic() - began < 30
    assert re.search(r"(?m)^error: rank 1 \(pid \d+ on \S+\)", err), (out, err)
