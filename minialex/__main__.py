"""``python -m minialex …``: the command line, from a source tree too, where nothing is installed."""

from __future__ import annotations

import os
import signal
import sys

NEEDED = ("typer", "rich")
"""What every command needs; NumPy apart, some need more, and say so."""

RANKS = ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK")
"""What a launcher of MPI's sets."""

if __name__ == "__main__":
    interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not under nohup or the like
    if interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Ctrl-C while all is imported: no traceback
    if hasattr(signal, "pthread_sigmask") and any(name in os.environ for name in RANKS):
        early = {getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")}
        signal.pthread_sigmask(signal.SIG_BLOCK, early)  # until it has joined the others, who wait for it
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
