"""Trains the runs that a study lacks, in separate processes, several at once; they can be stopped and resumed."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from minialex.backend import registry
from minialex.engine.opening import prepare
from minialex.engine.session import placement_of
from minialex.errors import ConfigurationError, MinialexError, NumericalError, ResourceError
from minialex.recipe.fields import Recipe
from minialex.runs.run_folder import Run, is_run, read_metrics
from minialex.storage import atomic
from minialex.studies import measures
from minialex.studies.outcome import run_folder
from minialex.studies.study import deciding_fields, key
from minialex.training.listening import Listener
from minialex.training.loop import train
from minialex.training.signals import StopRequest

POLL = 0.3  # seconds


@dataclass(frozen=True)
class Place:
    """Where runs are computed.

    Attributes:
        out: folder of the runs
        data: path of the data set (``cifar10:PATH`` without the name), or empty
        devices: a placement for each of several concurrent runs; empty: the backend's first device
    """

    out: Path
    data: str = ""
    backend: str | None = None
    threads: int | None = None
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        recipe: the recipe to train
        words: a description for readers
        may_diverge: whether non-finite numbers are an answer, too
        goal: the training error at which the run has given its answer
    """

    recipe: Recipe
    words: str
    may_diverge: bool = False
    goal: float | None = None

    def done(self, out: Path) -> bool:
        """Whether its folder holds its answer."""
        folder = run_folder(out, key(self.recipe))
        return measures.finished(folder, self.recipe, self.goal) or (self.may_diverge and measures.diverged(folder))


@dataclass
class State:
    """The progress of all jobs, for a display.

    Attributes:
        epochs, total: epochs done and epochs wanted, over all jobs to do
        seconds_left: None before the first epoch is done
    """

    finished: int
    jobs: int
    epochs: int
    total: int
    seconds_left: float | None
    running: tuple[str, ...]


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    messages: Connection
    device: str | None
    begun: int
    asked: bool = False

    def epochs_done(self, out: Path) -> int:
        """Epochs that this process has trained."""
        return measures.epochs_done(run_folder(out, key(self.job.recipe))) - self.begun

    def ask_to_stop(self) -> None:
        """Ask the run to save and end, once: a second signal would end it without a checkpoint."""
        if not self.asked:
            self.asked = True
            self.process.terminate()


def unfinished(jobs: Sequence[Job], out: Path) -> list[Job]:
    """Jobs that are not done; each run appears once, however many studies want it."""
    found: dict[str, Job] = {}
    for job in jobs:
        if not job.done(out):
            found.setdefault(key(job.recipe), job)
    return list(found.values())


def run(jobs: Sequence[Job], place: Place, at_once: int, told: Callable[[State], None]) -> str:
    """Train all jobs, several at once.

    Returns:
        ``""`` if all are done, else what stopped them: ``"Ctrl-C"``, ``"SIGTERM"``, …. Runs that were begun have then
        saved, and continue from there the next time, to the same bits.

    Raises:
        MinialexError: What a run raised; the others are stopped first, and continue the next time, too.
        ResourceError: If a run's process was killed.
    """
    waiting = list(jobs)
    total = sum(job.recipe.epochs for job in jobs)
    begun = [measures.epochs_done(run_folder(place.out, key(job.recipe))) for job in jobs]
    fresh = 0  # epochs of runs that ended here
    workers: list[_Worker] = []
    done, began = 0, time.monotonic()
    failure: MinialexError | None = None
    context = multiprocessing.get_context("spawn")
    with StopRequest() as stop:
        while waiting or workers:
            while waiting and len(workers) < at_once and not stop.requested and failure is None:
                workers.append(_start(context, waiting.pop(0), place, workers))
            if (stop.requested or failure) and not workers:
                break
            time.sleep(POLL)
            for worker in list(workers):
                if worker.process.is_alive():
                    continue
                workers.remove(worker)
                failure = failure or _failure(worker, stopping=bool(stop.requested))
                done += worker.process.exitcode == 0
                fresh += worker.epochs_done(place.out)
            if failure or stop.requested:
                for worker in workers:
                    worker.ask_to_stop()
            trained = fresh + sum(worker.epochs_done(place.out) for worker in workers)
            epochs = sum(begun) + trained
            left = (time.monotonic() - began) / trained * (total - epochs) if trained > 0 else None
            told(State(done, len(jobs), epochs, total, left, tuple(worker.job.words for worker in workers)))
    if failure is not None:
        raise failure
    return stop.requested or ""


def _start(
    context: multiprocessing.context.SpawnContext, job: Job, place: Place, workers: Sequence[_Worker]
) -> _Worker:
    busy = [worker.device for worker in workers]
    device = min(place.devices, key=busy.count) if place.devices else None
    mine, theirs = context.Pipe(duplex=False)
    process = context.Process(target=train_one, args=(job, place, device, theirs, key(job.recipe)), name=job.words)
    process.start()
    theirs.close()
    return _Worker(job, process, mine, device, measures.epochs_done(run_folder(place.out, key(job.recipe))))


def _failure(worker: _Worker, stopping: bool) -> MinialexError | None:
    """The error of a process that ended; None without one, or if it was asked to stop, even before it began."""
    code = worker.process.exitcode or 0
    with contextlib.suppress(EOFError):
        if worker.messages.poll():
            kind, text = worker.messages.recv()
            error = MinialexError(f"{worker.job.words}: {text}")
            error.exit_code = kind
            return error
    if stopping or code in (0, 75, 130):
        return None
    if code < 0:
        name = signal.Signals(-code).name
        why = " (memory ran out?)" if -code == signal.SIGKILL else ""
        return ResourceError(
            f"{worker.job.words}: its process was ended by {name}{why}; nothing is lost: run the same command again, "
            "with fewer --jobs if it comes again"
        )
    return ResourceError(f"{worker.job.words}: its process ended with code {code}; run the same command again")


class Reached(Exception):
    """A run has given its answer before its last epoch."""


class Goal(Listener):
    """Ends a training at the epoch that reaches a training error."""

    def __init__(self, run: Run, goal: float) -> None:
        self.run, self.goal = run, goal

    def recorded(self, record: Mapping[str, Any]) -> None:
        """Called when the metrics already hold the record."""
        if record["kind"] != "validation":
            return
        if measures.epochs_to_goal(read_metrics(self.run.paths.metrics), self.goal) is not None:
            raise Reached


def train_one(job: Job, place: Place, devices: str | None, messages: Connection, known: str) -> None:
    """The work of one process: train a run, or continue it, if its key is still the one known to the parent."""
    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's Ctrl-C then reaches only the parent, which asks all to stop
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        if key(job.recipe) != known:  # the parent would wait for another folder, again and again
            raise ConfigurationError("its images or its network were changed meanwhile: run the same command again")
        code = _train(job, place, devices)
    except Reached:
        code = 0
    except MinialexError as error:
        if job.may_diverge and isinstance(error, NumericalError):
            atomic.write_json(run_folder(place.out, key(job.recipe)) / measures.DIVERGED, {"said": str(error)})
            raise SystemExit(0) from None
        messages.send((error.exit_code, str(error)))
        code = error.exit_code
    raise SystemExit(code)


def _stop_with_parent() -> None:
    """Ask this process to save and end when its parent has ended, in whatever way, SIGKILL included."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)


def _train(job: Job, place: Place, devices: str | None) -> int:
    recipe = job.recipe
    data = measures.data_of(recipe, place.data)
    backend = registry.load(place.backend, threads=place.threads, precision=recipe.precision)
    placement = placement_of(backend, devices, recipe.columns)
    full = prepare(recipe.replace(backend=backend.name, devices=",".join(placement)), data)
    if place.data:
        full = full.replace(data=f"{recipe.data}:{place.data}")
    folder = run_folder(place.out, key(recipe))
    resume = is_run(folder)
    if not resume and folder.is_dir():  # killed before the folder was a run
        atomic.remove_folder(folder)
    with Run.resume(folder) if resume else Run.create(folder, full.to_toml()) as run:
        if not resume:
            atomic.write_json(folder / "arm.json", {"fields": deciding_fields(recipe)})
        listener = None if job.goal is None else Goal(run, job.goal)
        return train(full, data, backend, placement, run, listener, resume=resume).exit_code
