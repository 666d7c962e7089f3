"""A tiny program of several ranks, for tests of the launcher and the watch: `python -m tiny_ranks HOW SECONDS`.

Every rank adds up numbers with the others for some steps; rank 1 (or rank MINIALEX_TEST_RANK) meets with HOW.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import mpi4py
import numpy as np

mpi4py.rc.initialize = mpi4py.rc.finalize = False
from mpi4py import MPI  # noqa: E402

from minialex.errors import DataError, RankLost  # noqa: E402
from minialex.ranks.watch import Watch, doing  # noqa: E402


def leave(comm: MPI.Comm, watch: Watch) -> None:
    """End together."""
    watch.wait(comm.Ibarrier())
    watch.close()
    MPI.Finalize()


def main(how: str, seconds: float) -> int:
    """Add up, and meet with it."""
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    comm = MPI.COMM_WORLD
    watch, rank = Watch(comm, seconds), comm.rank
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, _: stops.append(number))
    folder = os.environ.get("MINIALEX_TEST_FOLDER")
    if folder:
        Path(folder, f"{rank}.pid").write_text(str(os.getpid()))
    mine = rank == int(os.environ.get("MINIALEX_TEST_RANK", "1"))
    x, y = np.ones(1 << 16, np.float32), np.empty(1 << 16, np.float32)
    stop, any_stop = np.zeros(1, np.int32), np.zeros(1, np.int32)
    for step in range(2000 if how == "signal" else 6):
        if step == 3 and mine:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif how == "busy":
                with doing("reading images"):
                    until = time.monotonic() + 1.8 * seconds
                    while time.monotonic() < until:
                        sum(range(10**5))
            elif how == "raise":
                try:
                    raise DataError("the image is broken")
                except DataError as error:
                    watch.end(RankLost(f"{watch.names[rank]}: {error}"))
        if how == "signal":
            time.sleep(0.02)
        watch.wait(comm.Iallreduce(x, y))
        assert np.all(y == comm.size)
        stop[0] = max(stops, default=0)
        watch.wait(comm.Iallreduce(stop, any_stop, MPI.MAX))
        if any_stop[0]:
            if rank == 0:
                time.sleep(0.5)
                words = f"saved at step {step} after {signal.Signals(int(any_stop[0])).name}"
                if folder:
                    Path(folder, "saved").write_text(words)
                print(words, flush=True)
            leave(comm, watch)
            return (130 if any_stop[0] == signal.SIGINT else 75) if rank == 0 else 0
    if rank == 0:
        print("done", flush=True)
    leave(comm, watch)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], float(sys.argv[2])))
