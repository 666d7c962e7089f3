"""Measures where the time of a step goes: the whole step, every layer in every phase, and the floor of each.

This module only measures. `minialex.speed.roofline` has the floors' arithmetic, `minialex.speed.peaks` the machine's
peak, `minialex.figures.bench` the table and the picture. Images and labels are random numbers; the learning rate is so
small that the weights stay unchanged, however many steps are timed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.program import CompiledStep
from minialex.backend.protocol import Backend
from minialex.data.statistics import Statistics
from minialex.engine.columns import Placement
from minialex.engine.schedule import epoch_rates
from minialex.engine.session import Session, view_offsets
from minialex.engine.step import Kind, record
from minialex.recipe.fields import Recipe
from minialex.speed import peaks
from minialex.speed.roofline import Key, Peaks, Work, works

FEED: Key = ("feed", "input")
"""The part before the step: drawing crops, reflections and colours, and copying the batch to its devices."""

TINY_RATE = 1e-9


@dataclass(frozen=True)
class Part:
    """A layer in one phase, all columns together.

    Attributes:
        layer, phase: names (phases are those of `minialex.backend.program.Call`)
        seconds: median of the instrumented repetitions
        floor: the least seconds that it can take (see `minialex.speed.roofline`); None if floors were not requested
        includes: parts that the backend does in the same sweep, which have no time of their own; `floor` includes
            theirs
    """

    layer: str
    phase: str
    seconds: float
    floor: float | None
    includes: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Timings:
    """The measurements of one step.

    Attributes:
        first: seconds of the first step, including anything that the backend prepares or compiles
        seconds: seconds of every uninstrumented repetition of the whole step: feed, step, and results back on the host
        parts: the parts, in the order in which they begin
        memory: the most bytes that the process grew by, from before the network was built to the end of a step,
            including weights and momentum; None if the system does not report it
        peaks: the machine's peaks; None if floors were not requested
    """

    model: str
    kind: Kind
    columns: int
    batch_size: int
    dtype: str
    backend: str
    placement: Placement
    threads: int | None
    first: float
    seconds: tuple[float, ...]
    parts: tuple[Part, ...]
    memory: int | None
    peaks: Peaks | None

    @property
    def median(self) -> float:
        """Seconds of the median repetition."""
        return statistics.median(self.seconds)

    @property
    def images_per_second(self) -> float:
        """Images per second at the median."""
        return self.batch_size / self.median

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON values."""
        return {**dataclasses.asdict(self), "median": self.median, "images_per_second": self.images_per_second}


def measure(
    recipe: Recipe,
    backend: Backend,
    placement: Placement,
    kind: Kind = "train",
    *,
    repeats: int = 5,
    threads: int | None = None,
    floors: bool = True,
    progress: Callable[[str, int], None] = lambda what, done: None,
) -> Timings:
    """Time a step of a recipe's network, in total and part by part.

    Instrumented and uninstrumented repetitions alternate, so that both see the same machine.

    Args:
        recipe: a recipe with `classes` set; a step has its `batch_size` images
        kind: ``"train"``, or ``"infer"`` (one view)
        repeats: number of repetitions of each kind, after two that do not count
        threads: the backend's number of threads; the peak is measured with as many
        progress: called with the current task and the number of its 2 · repeats + 2 steps done

    Raises:
        ResourceError: If the batch does not fit in memory.
    """
    before = memory_now(reset=True)
    subject = Subject(random_session(recipe, backend, placement), kind, recipe.batch_size)
    progress("first step", 0)
    first = subject.run()
    progress("second step", 1)
    subject.run()
    after = memory_peak()
    seconds, watched = [], []
    for n in range(repeats):
        progress("whole steps", 2 * n + 2)
        seconds.append(subject.run())
        progress("part by part", 2 * n + 3)
        watched.append(subject.run_watched())
    peak = None
    if floors:
        progress("the machine's peak", 2 * repeats + 2)
        peak = peaks.measure(backend, placement[0], threads, recipe.dtype)
    memory = after - before if before is not None and after is not None else None
    return Timings(
        recipe.model, kind, recipe.columns, recipe.batch_size, recipe.dtype, backend.name, placement, threads, first,
        tuple(seconds), tuple(parts(medians(watched), subject.works, peak)), memory, peak,
    )  # fmt: skip


def random_session(recipe: Recipe, backend: Backend, placement: Placement) -> Session:
    """A session for random images, with a grey mean."""
    mean = np.full((3, recipe.image_size, recipe.image_size), 127.5, np.float32)
    return Session(recipe, backend, placement, Statistics(mean, np.eye(3) * 5000.0))


class Subject:
    """A step of a session with a batch of random images, which can be run repeatedly."""

    def __init__(self, session: Session, kind: Kind, batch_size: int) -> None:
        self.session = session
        self.kind: Kind = kind
        self.images, self.labels = random_batch(session.recipe, batch_size)
        self.now = dataclasses.replace(epoch_rates(session.recipe, 1, ()), learning_rate=TINY_RATE)
        self.done = 0
        self.works = works(record(session.plan, kind, batch_size, session.backend.devices))

    def run(self) -> float:
        """Seconds of one whole step, as seen by a user of `Session`."""
        began = time.perf_counter()
        if self.kind == "train":
            self.session.train(self.images, self.labels, self.done, self.now)
        else:
            self.session.probabilities(self.images, self.labels)
        self.done += 1
        return time.perf_counter() - began

    def run_watched(self) -> dict[Key, float]:
        """Seconds of each part of one step."""
        session = self.session
        step: CompiledStep = session.step(self.kind, len(self.images))
        marks: list[tuple[Key, float]] = [(FEED, time.perf_counter())]
        if self.kind == "train":
            feed = session.training_feed(self.images, self.labels, self.done, self.now)
        else:
            (centre,) = view_offsets(session.recipe.image_size, session.recipe.crop, 1)
            feed = session.view_feed(self.images, self.labels, *centre)
        self.done += 1
        step(feed, lambda layer, column, phase: marks.append(((layer, phase), time.perf_counter())))
        for device in session.plan.devices:
            session.backend.synchronize(device)
        ends = [*(when for _, when in marks[1:]), time.perf_counter()]
        seconds: dict[Key, float] = {}
        for (key, begin), end in zip(marks, ends, strict=True):
            seconds[key] = seconds.get(key, 0.0) + end - begin
        return seconds


def random_batch(recipe: Recipe, batch_size: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images uint8 [N,3,S,S] and labels int64 [N] for a recipe, the same every time."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, 3, recipe.image_size, recipe.image_size), np.uint8)
    return images, random.integers(0, recipe.classes, batch_size, np.int64)


def medians(watched: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The median of every part over the repetitions."""
    return {key: statistics.median(seconds.get(key, 0.0) for seconds in watched) for key in watched[0]}


def parts(seconds: Mapping[Key, float], work: Mapping[Key, Work], peak: Peaks | None) -> list[Part]:
    """Parts with their floors; work that was not timed separately belongs to the part that it was done with.

    For an update that is the same layer's backward part, otherwise the part that began before it.
    """
    holders: dict[Key, Key] = {}
    latest = next(iter(seconds))
    for key in work:
        layer, phase = key
        if key in seconds:
            latest = key
        own_backward = (layer, "backward") if phase == "update" and key not in seconds else key
        holders[key] = holders.get(own_backward, latest)
    timed = []
    for key, duration in seconds.items():
        members = [member for member, holder in holders.items() if holder == key]
        floor = None if peak is None else sum(peak.floor(work[member]) for member in members)
        timed.append(Part(*key, duration, floor, tuple(member for member in members if member != key)))
    return timed


def memory_now(*, reset: bool = False) -> int | None:
    """Bytes of memory that this process holds; `reset` restarts its peak from here. None if unknown."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def memory_peak() -> int | None:
    """The most bytes of memory that this process has held; None if unknown."""
    return _memory("VmHWM")


def _memory(name: str) -> int | None:
    """One of Linux's memory figures of the process; elsewhere its peak since it began, None on Windows."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
