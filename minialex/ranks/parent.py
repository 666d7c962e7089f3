"""The parent of one rank: ``python -m minialex.ranks.parent minialex train …`` runs ``python -m minialex train …``.

MPICH kills the others as soon as one process is killed, so none of them can report which one it was: its parent does.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable
from types import FrameType

from minialex.errors import ResourceError
from minialex.screen.streams import complain

PR_SET_PDEATHSIG = 1
FORWARDED = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1") if hasattr(signal, name))


LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded here, since little is safe after a fork


def die_with_parent(number: int) -> None:
    """Let Linux send this process a signal when its parent ends, in whatever way; elsewhere do nothing."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, number)


def dying(number: int) -> Callable[[], None] | None:
    """A function for `subprocess.Popen` to call in a new process, so that it gets this signal when this one ends."""
    return None if LIBC is None else lambda: die_with_parent(number)


def main() -> int:
    """Run the rank; if a signal that did not come through here kills it, report its number and the signal."""
    die_with_parent(signal.SIGKILL)
    rank = next((os.environ[name] for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK") if name in os.environ), "?")
    asked: list[int] = []
    child: subprocess.Popen[bytes] | None = None

    def forward(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if child is not None:
            child.send_signal(number)

    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, forward)
    child = subprocess.Popen(
        [sys.executable, "-m", *sys.argv[1:]], close_fds=False,  # one of them talks to mpiexec
        process_group=0,  # MPICH signals this process's whole group: Ctrl-C would arrive twice and end the rank
        preexec_fn=dying(signal.SIGKILL),  # noqa: PLW1509 - one system call
    )  # fmt: skip
    for number in asked:  # signals that came before there was a child
        child.send_signal(number)
    code = child.wait()
    if code >= 0:
        return code
    if -code in asked:
        return 130 if -code == signal.SIGINT else 75
    name = signal.Signals(-code).name
    late = "waited for others that did not join" if name == "SIGALRM" else f"was killed by {name}"
    complain("error", f"rank {rank} (pid {child.pid} on {platform.node()}) {late}")
    return ResourceError.exit_code


if __name__ == "__main__":
    sys.exit(main())
