"""Where the time of a step goes: the whole step, every layer in every phase, and the floor of each.

This module only measures. `minialex.speed.roofline` has the floors' arithmetic, `minialex.speed.peaks` the machine's
peak, `minialex.figures.bench` the table and the picture. Images and labels are random numbers; the learning rate is
so small that the weights stay what they are, however many steps are timed.
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
"""The part before the step: crops, reflections and colours drawn, and the batch copied to its devices."""

TINY_RATE = 1e-9


@dataclass(frozen=True)
class Part:
    """A layer in one phase, all columns together.

    Attributes:
        layer, phase: which (phases are those of `minialex.backend.program.Call`)
        seconds: median of the repetitions that were watched
        floor: seconds that it takes at least (see `minialex.speed.roofline`), None where floors were not asked for
        includes: parts that the backend does in the same sweep, so that they have no time of their own; `floor` is the
            sum with theirs
    """

    layer: str
    phase: str
    seconds: float
    floor: float | None
    includes: tuple[Key, ...] = ()


@dataclass(frozen=True)
class Timings:
    """What was measured of one step.

    Attributes:
        first: seconds of the first step, with whatever the backend prepares or compiles
        seconds: of every repetition of the whole step, not watched: feed, step, and its results back on the host
        parts: in the order in which they begin
        memory: bytes that the process grew by at most, from before the network was built to the end of a step, weights
            and momentum included; None where the system does not tell
        peaks: of the machine, None where floors were not asked for
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
        """At the median."""
        return self.batch_size / self.median

    def as_dict(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
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

    Repetitions that are watched and that are not alternate, so that both see the same machine.

    Args:
        recipe: with `classes` set; its `batch_size` images are one step
        kind: ``"train"``, or ``"infer"`` (one view)
        repeats: of each, after two steps that do not count
        threads: that the backend was given; the peak is measured with as many
        progress: called with what is being done and how many of its 2 · repeats + 2 steps are done

    Raises:
        ResourceError: If the batch does not fit into memory.
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
    """A session for random images, whose mean is grey."""
    mean = np.full((3, recipe.image_size, recipe.image_size), 127.5, np.float32)
    return Session(recipe, backend, placement, Statistics(mean, np.eye(3) * 5000.0))


class Subject:
    """A step of a session with a batch of random images, ready to be run again and again."""

    def __init__(self, session: Session, kind: Kind, batch_size: int) -> None:
        self.session = session
        self.kind: Kind = kind
        self.images, self.labels = random_batch(session.recipe, batch_size)
        self.now = dataclasses.replace(epoch_rates(session.recipe, 1, ()), learning_rate=TINY_RATE)
        self.done = 0
        self.works = works(record(session.plan, kind, batch_size, session.backend.devices))

    def run(self) -> float:
        """Seconds of one whole step, as a user of `Session` waits for it."""
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
    """Images uint8 [N,3,S,S] and labels int64 [N] that fit a recipe, the same every time."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch_size, 3, recipe.image_size, recipe.image_size), np.uint8)
    return images, random.integers(0, recipe.classes, batch_size, np.int64)


def medians(watched: Sequence[Mapping[Key, float]]) -> dict[Key, float]:
    """The median of every part over the repetitions."""
    return {key: statistics.median(seconds.get(key, 0.0) for seconds in watched) for key in watched[0]}


def parts(seconds: Mapping[Key, float], work: Mapping[Key, Work], peak: Peaks | None) -> list[Part]:
    """Parts with their floors; what was not told apart belongs to the part that it was done with.

    That is the same layer's backward part for an update, else the part that began before it.
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
    """Bytes of memory that this process holds, and with `reset` its peak begins anew here; None if not known."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def memory_peak() -> int | None:
    """Bytes of memory that this process held at most; None if not known."""
    return _memory("VmHWM")


def _memory(name: str) -> int | None:
    """A figure that Linux keeps of the process; elsewhere its peak since it began, None on Windows."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
