"""Checks whether processes find each other through MPI, and how fast they all-reduce; ``python -m`` runs one of two."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np

from minialex.backend import registry
from minialex.backend.findings import Check
from minialex.errors import MinialexError
from minialex.ranks import joining, launch
from minialex.ranks.group import Group
from minialex.screen.formats import amount
from minialex.screen.formats import seconds as spoken
from minialex.screen.sheet import Sheet
from minialex.screen.terminal import console

NUMBERS = 60_965_224
"""Numbers in a sum: AlexNet's gradients, 244 MB."""

PATIENCE = 120.0
"""Seconds that two ranks may take to answer."""


def checks(measure: bool) -> list[Check]:
    """Check mpi4py with its library, its ``mpiexec``, and a sum over two ranks.

    Args:
        measure: sum as many numbers as AlexNet has, and report the speed; otherwise few
    """
    try:
        mpiexec, vendor = launch.find_mpiexec()
    except MinialexError as error:
        wrong, _, mend = str(error).rpartition(": ")
        return [Check("ranks", "mpi4py", "problem", wrong, mend)]
    from mpi4py import MPI

    version = ".".join(map(str, MPI.get_vendor()[1]))
    found = [
        Check("ranks", "mpi4py", "ok", f"with {vendor} {version}"),
        Check("ranks", "mpiexec", "ok", mpiexec),
    ]
    words = launch.command(mpiexec, vendor, 2, None, ["minialex.doctor.ranks", str(NUMBERS if measure else 1000)])
    mend = "run it yourself: " + " ".join([mpiexec, "-n", "2", sys.executable, "-m", "minialex", "doctor"])
    try:
        ended = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        told = json.loads(ended.stdout.splitlines()[-1]) if ended.returncode == 0 else None
    except (OSError, subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return [*found, Check("ranks", "two ranks", "problem", " ".join(str(error).split()), mend)]
    if told is None:
        said = (ended.stderr.strip() or f"exit code {ended.returncode}").splitlines()[-1]
        return [*found, Check("ranks", "two ranks", "problem", said.removeprefix("error: "), mend)]
    text = f"sum correctly; a sum of {amount(4 * NUMBERS, 'B')}: {_rate(2, told)}" if measure else "add up right"
    return [*found, Check("ranks", "two ranks", "ok", text)]


def _rate(ranks: int, seconds: float) -> str:
    sent = 2 * (ranks - 1) / ranks * 4 * NUMBERS
    return f"{spoken(seconds)}, {amount(sent / seconds, 'B/s')} from each"


def add_up(group: Group, numbers: int, tries: int = 3) -> float:
    """Seconds of the fastest sum of `numbers` float32 numbers over all ranks.

    Raises:
        MinialexError: If the sum is wrong.
    """
    best = float("inf")
    for _ in range(tries):
        own = np.full(numbers, group.rank + 1, np.float32)
        group.exchange("ready")
        began = time.perf_counter()
        group.sum([own], [own])
        best = min(best, time.perf_counter() - began)
        wrong = int(np.count_nonzero(own != group.size * (group.size + 1) / 2))
        if wrong:
            raise MinialexError(f"the sum over ranks is wrong in {wrong:,} of {numbers:,} numbers")
    return float(max(group.exchange(best)))


def together(group: Group, backend: str | None, quick: bool) -> int:
    """What ``mpiexec -n N minialex doctor`` shows: every rank's place and devices, and how fast they add up."""
    name = backend or registry.default_name()
    try:
        devices = f"{name}: {', '.join(registry.load(name).devices)}"
    except MinialexError as error:
        devices = str(error)
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    told = group.exchange([own, devices])
    seconds = add_up(group, 1000 if quick else NUMBERS)
    if group.rank:
        return 0
    places = group.places
    rows = [
        [str(rank), places[rank].host, str(places[rank].pid), str(cores), has] for rank, (cores, has) in enumerate(told)
    ]
    screen = console(least=80)
    screen.print(Sheet(f"{group.size} ranks, {group.engine}", ("rank", "host", "process", "cores", "devices"), rows,
                       "rlrrl").rich())  # fmt: skip
    if not quick:
        screen.print(f"a sum of {amount(4 * NUMBERS, 'B')} over all of them: {_rate(group.size, seconds)}")
    for host in dict.fromkeys(place.host for place in places):
        here = [rank for rank, place in enumerate(places) if place.host == host]
        cores = max(told[rank][0] for rank in here)
        if len(here) > cores:
            screen.print(f"note: {len(here)} ranks share {cores} cores of {host} → start {cores} there")
    return 0


if __name__ == "__main__":
    ranks = joining.join()
    took = add_up(ranks, int(sys.argv[1]))
    if ranks.rank == 0:
        print(json.dumps(took), flush=True)
    sys.exit(joining.leave(0))
