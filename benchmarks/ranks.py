"""Several processes beside one, on the same cores: how fast a step is, and what of its sums hides behind it.

    python benchmarks/ranks.py                      # records benchmarks/results/ranks.json
    python benchmarks/ranks.py --batch-size 16 --timeline-batch 8 --rounds 3 --out build/ranks.json

Needs the extra ``mpi``. Every side is a program of its own (this file with ``--serve``), under ``mpiexec`` where it has
several processes, and does one step of the full network, with Numba, when it is asked: all sides in turn, round after
round, so that they see the same machine. Processes that are not asked sleep. What processors did for all of a side's
processes is counted, too: other programs delay that less than what a clock shows.

The timeline is of one step of two processes: when each layer was computed, when each bucket of gradients was summed,
and when a process had nothing left to do but wait for a sum. ``docs/how-to/many-machines.md`` shows it.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "backends"), str(ROOT / "benchmarks")]  # also where nothing is installed

import numpy as np  # noqa: E402

from minialex.backend import registry  # noqa: E402
from minialex.backend.protocol import Backend  # noqa: E402
from minialex.data.statistics import Statistics  # noqa: E402
from minialex.engine.schedule import epoch_rates  # noqa: E402
from minialex.engine.session import Session  # noqa: E402
from minialex.network import variants  # noqa: E402
from minialex.network.parameters import join_columns  # noqa: E402
from minialex.ranks import joining, launch  # noqa: E402
from minialex.ranks.group import Group  # noqa: E402
from minialex.recipe.toml import load as load_recipe  # noqa: E402
from minialex.speed import bench, machine  # noqa: E402
from minialex.storage.atomic import write_json  # noqa: E402

OUT = ROOT / "benchmarks" / "results" / "ranks.json"
NAP = 0.01
"""Seconds for which a process that is not asked sleeps between two looks."""

ONE, ONE_MPI, TWO, ENGINE, NOT_HIDDEN = "one", "one under mpiexec", "two", "two, engine", "two, nothing hidden"
DIVIDED = "two, full layers divided"
SIDES = {  # processes under mpiexec (0: without), threads of each, who adds up
    ONE: (0, 2, "fixed"), ONE_MPI: (1, 2, "fixed"), TWO: (2, 1, "fixed"), ENGINE: (2, 1, "engine"),
    NOT_HIDDEN: (2, 1, "at once"), DIVIDED: (2, 1, "divided"),
}  # fmt: skip


class Rank:
    """One process of a side.

    Args:
        group: its group
        threads: that compute
        how: who adds up gradients; "at once": in the fixed order, and nothing is computed meanwhile
    """

    def __init__(self, group: Group, threads: int, how: str) -> None:
        self.group, self.how = group, how
        self.backend: Backend = registry.load("numba", threads=threads)
        self.done = 0
        self.sums: list[dict[str, Any]] = []
        self._sum = group.sum
        if group.size > 1:
            told: Any = group
            told.sum = self._timed
            if how == "at once":
                told.begin_sum = self._at_once

    def _timed(self, arrays: Sequence[Any], out: Sequence[Any], how: Any = "fixed") -> None:
        began, spent = time.perf_counter(), time.thread_time()
        self._sum(arrays, out, how)
        spent = time.thread_time() - spent
        nbytes = sum(array.nbytes for array in arrays)
        self.sums.append({"begin": began, "end": time.perf_counter(), "bytes": nbytes, "processor": spent})

    def _at_once(self, arrays: Sequence[Any], out: Sequence[Any], how: Any = "fixed") -> Callable[[], None]:
        self._timed(arrays, out, how)
        return lambda: None

    @cached_property
    def session(self) -> Session:
        """The full network with some weights: those of training's start take long to draw."""
        several = {"shards": self.group.size} if self.group.size > 1 else {}
        how = "engine" if self.how == "engine" else "fixed"
        if self.how == "divided":
            several = {**several, "full_layers": "divided"}
        recipe = load_recipe("alexnet-2012").replace(classes=1000, sum=how, **several)
        parameters = variants.build(recipe).parameters(recipe.columns)
        random = np.random.default_rng(0)
        weights = {
            name: 0.01 * random.standard_normal(parameter.shape, np.float32) for name, parameter in parameters.items()
        }
        mean = np.full((3, recipe.image_size, recipe.image_size), 127.5, np.float32)
        placement = (self.backend.devices[0],) * recipe.columns
        return Session(
            recipe, self.backend, placement, Statistics(mean, np.eye(3) * 5000.0), join_columns(weights),
            group=self.group,
        )  # fmt: skip

    def _given(self, batch: int) -> tuple[Any, ...]:
        share = batch // self.group.size
        images, labels = bench.random_batch(self.session.recipe, batch)
        own = slice(self.group.rank * share, (self.group.rank + 1) * share)
        now = replace(epoch_rates(self.session.recipe, 1, ()), learning_rate=bench.TINY_RATE)
        self.done += 1
        return images[own], labels[own], self.done, now

    def step(self, batch: int) -> list[list[float]]:
        """Of each process the seconds that one step took it, and those in which a processor worked for it."""
        given = self._given(batch)
        self.group.exchange(None)
        began, spent = time.perf_counter(), time.process_time()
        self.session.train(*given)
        own = [time.perf_counter() - began, time.process_time() - spent]
        return [[float(number) for number in told] for told in self.group.exchange(own)]

    def timeline(self, batch: int) -> list[dict[str, Any]]:
        """One step of every process: what it did from when to when (seconds), and its sums."""
        given, session = self._given(batch), self.session
        step = session.step("train", len(given[0]))
        feed = session.training_feed(*given)
        step(feed)
        self.sums.clear()
        marks: list[tuple[str, str, float]] = []
        self.group.exchange(None)
        began = time.perf_counter()
        step(feed, lambda layer, column, phase: marks.append((layer, phase, time.perf_counter())))
        ended = time.perf_counter()
        ends = [*(when for *_, when in marks[1:]), ended]
        work = [
            {"layer": layer, "phase": phase, "begin": begin - began, "end": end - began}
            for (layer, phase, begin), end in zip(marks, ends, strict=True)
        ]
        sums = [{**one, "begin": one["begin"] - began, "end": one["end"] - began} for one in self.sums]
        return list(self.group.exchange({"work": work, "sums": sums, "seconds": ended - began}))


def serve(threads: int, how: str) -> None:
    """Do what rank 0 is asked on its standard input, one JSON object a line, until that ends."""
    group = joining.join()
    rank = Rank(group, threads, how)
    if group.rank == 0:
        print(json.dumps("ready"), flush=True)
    while True:
        line = sys.stdin.readline() if group.rank == 0 else ""
        if group.size > 1:
            _nap(group)
        asked = json.loads(group.exchange(line)[0] or "null")
        if asked is None:
            return
        found = getattr(rank, asked["do"])(asked["batch"])
        if group.rank == 0:
            print(json.dumps(found), flush=True)


def _nap(group: Any) -> None:
    """Until rank 0 is asked: looks now and then, and so takes nothing from who computes meanwhile."""
    request = group._comm.Ibarrier()
    while not request.Test():
        time.sleep(NAP)


class Server:
    """A side's program."""

    def __init__(self, side: str, mpiexec: str) -> None:
        ranks, threads, how = SIDES[side]
        words = [sys.executable, __file__, "--serve", str(threads), how]
        command = [mpiexec, "-n", str(ranks), *words] if ranks else words
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def send(self, do: str, batch: int) -> None:
        """Ask for something."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, "batch": batch}) + "\n")
        self.process.stdin.flush()

    def reply(self) -> Any:
        """What it says next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a side ended with {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


@contextmanager
def quiet(command: str | None) -> Iterator[None]:
    """Within the block a command runs whose own child waits; it may put other programs aside meanwhile."""
    if command is None:
        yield
        return
    words = [*shlex.split(command), "sh", "-c", "echo ready; read end"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, smallest, largest."""
    return {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of how many times as fast `ours` was."""
    return statistics.median(b / a for a, b in zip(ours, theirs, strict=True))


def hidden(told: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Of each process: seconds of its sums, for how long it waited for them, and the share that was hidden."""
    found = []
    for rank in told:
        summing = sum(one["end"] - one["begin"] for one in rank["sums"])
        waited = sum(one["end"] - one["begin"] for one in rank["work"] if one["phase"] == "reduce")
        found.append({"summing": summing, "waited": waited, "hidden": max(0.0, 1 - waited / summing)})
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Ask all sides in turn, and write what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--serve", nargs=2, metavar=("THREADS", "HOW"), help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--timeline-batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sides", default=";".join(SIDES), help="some of: %(default)s")
    parser.add_argument("--quiet", help="a command that keeps the machine quiet while another runs")
    parser.add_argument("--seconds", type=float, default=80, help="no round is begun after so many (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args(arguments)
    if given.serve:
        serve(int(given.serve[0]), given.serve[1])
        return
    mpiexec, _ = launch.find_mpiexec()
    taken: dict[str, list[float]] = {side: [] for side in given.sides.split(";")}
    spent: dict[str, list[float]] = {side: [] for side in taken}
    servers = {side: Server(side, mpiexec) for side in taken}
    lines: list[Any] = []
    try:
        for server in servers.values():
            server.reply()  # it is ready
        for do, batch in (("timeline", given.timeline_batch), ("step", given.batch_size)):  # compile, and touch memory
            for side, server in servers.items():
                if do == "step" or side == TWO:
                    server.send(do, batch)
            for side, server in servers.items():
                if do == "step" or side == TWO:
                    server.reply()
        with quiet(given.quiet):
            until = time.monotonic() + given.seconds
            for number in range(given.rounds):
                if number and time.monotonic() > until:
                    break
                for side, server in servers.items():
                    server.send("step", given.batch_size)
                    seconds, processors = zip(*server.reply(), strict=True)
                    taken[side].append(max(seconds))
                    spent[side].append(sum(processors))
                    print(f"{side}: {1000 * max(seconds):,.0f} ms, {1000 * sum(processors):,.0f} of work", flush=True)
            for _ in range(3 if TWO in servers else 0):
                servers[TWO].send("timeline", given.timeline_batch)
                lines.append(servers[TWO].reply())
    finally:
        for server in servers.values():
            server.close()
    found = {
        "command": machine.anywhere(shlex.join(["python", "benchmarks/ranks.py", *(arguments or sys.argv[1:])])),
        **machine.describe(),
        "mpi": library(),
        "batch": given.batch_size,
        "seconds": taken,
        "sides": {side: summary(seconds) for side, seconds in taken.items()},
        "processor": {side: summary(seconds) for side, seconds in spent.items()},
    }
    if ONE in taken:
        found["speed"] = {side: paired(seconds, taken[ONE]) for side, seconds in taken.items()}
        print(json.dumps(found["speed"], indent=1))
    if lines:
        middle = sorted(lines, key=lambda told: max(rank["seconds"] for rank in told))[1]
        found["timeline"] = {"batch": given.timeline_batch, "ranks": middle, "hidden": hidden(middle)}
        print(json.dumps(found["timeline"]["hidden"], indent=1))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(given.out, found)


def library() -> str:
    """What MPI's library calls itself, and mpi4py's version."""
    import mpi4py

    mpi4py.rc.initialize = False
    from mpi4py import MPI

    name = " ".join(MPI.Get_library_version().split("\n")[0].replace("Version:", "").strip(" \0").split())
    return f"{name}, mpi4py {mpi4py.__version__}"


if __name__ == "__main__":
    main()
