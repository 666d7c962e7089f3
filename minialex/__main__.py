"""``python -m minialex …``: the command line; also works from a source tree without installation."""

from __future__ import annotations

import os
import signal
import sys

NEEDED = ("typer", "rich")
"""Packages that every command needs besides NumPy; some commands need more, and say so."""

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
"""Environment variables that MPI launchers set."""

if __name__ == "__main__":
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup or the like
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback on Ctrl-C during imports
    if hasattr(signal, "pthread_sigmask") and any(name in os.environ for name in RANKS):
        early = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")}
        signal.pthread_sigmask(signal.SIG_BLOCK, early)  # until it has joined the other ranks, which wait for it
    try:
        from minialex.cli.app import main
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        print(f"error: the commands need {' and '.join(NEEDED)}: pip install {' '.join(NEEDED)}", file=sys.stderr)
        sys.exit(2)
    if interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()
