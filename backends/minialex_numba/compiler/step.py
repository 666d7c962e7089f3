"""Compiled steps: a fused program's calls as tasks on buffers that are allocated once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from minialex.backend.arrays import Array
from minialex.backend.operations import FUNCTIONS, OVER_RANKS
from minialex.backend.pretend import HostArray
from minialex.backend.program import ArrayName, Call, Program, Value, Watch, values
from minialex.errors import ConfigurationError
from minialex_numba.compiler import memory
from minialex_numba.compiler.graph import SUMS, build
from minialex_numba.ops import NODES
from minialex_numba.ops.own import own
from minialex_numba.runtime.ahead import prepare
from minialex_numba.runtime.buffers import Bind, Buffers, Feed, Slices, Task, Unsupported, row_count, row_width
from minialex_numba.runtime.layout import Rows, channels_first_kernel, items
from minialex_numba.runtime.tape import Phase, Tape, split, whole
from minialex_numba.runtime.threads import Launch, Threads

LITTLE = 1 << 31
"""Steps with fewer multiply-adds than this are replayed (`minialex_numba.runtime.tape`), each column on a thread of its
own if there are as many of both."""

IN_PYTHON = frozenset({"scale_by_trust_ratio", "zeros", *OVER_RANKS, *SUMS})
"""Operations that do more than launch kernels and so cannot be replayed, besides the user's own (`FUNCTIONS`)."""


def compile_step(threads: Threads, program: Program, bindings: Mapping[ArrayName, Array]) -> Step | None:
    """Compile a program to a step; None if the kernels of compiled steps cannot do something in it."""
    try:
        return Step(threads, program, bindings)
    except Unsupported:
        return None


class Step:
    """A step of training or inference; see `minialex.backend.program.CompiledStep`.

    Attributes:
        program: the fused program
        slices: of the program's values
        buffers: its arrays
        nbytes: bytes of its buffers
    """

    def __init__(self, threads: Threads, program: Program, bindings: Mapping[ArrayName, Array]) -> None:
        dtypes = {value.dtype for value in program.bound.values() if value.dtype.kind == "f"}
        if len(dtypes) != 1:
            raise Unsupported("several dtypes")
        self.program, self.slices = build(program)
        calls = self.program.calls
        written = {name for call in calls for name in _written_in_place(call, self.slices)}
        self.written = [bindings[name] for name in sorted(written)]
        self.buffers = buffers = Buffers(threads, dtypes.pop(), self.slices, bindings, constant_weights=not written)
        binds: list[Bind] = []
        kernels: list[Bind] = []  # nodes that call our own kernels
        self.scratches: dict[int, list[Value]] = {}
        for position, call in enumerate(calls):
            if call.operation not in NODES and call.operation not in FUNCTIONS:
                raise Unsupported(call.operation)
            node = own(call.operation) if call.operation in FUNCTIONS else NODES[call.operation]
            binds.append(node(buffers, call.results, *call.args, **call.kwargs))
            if call.operation in NODES and call.operation not in SUMS:
                kernels.append(binds[-1])
            self.scratches[position], buffers.scratches = buffers.scratches, []
        columns = max((call.column for call in calls), default=0) + 1
        self.is_short = _multiply_adds(calls) < LITTLE
        side_by_side = columns == threads.count > 1 and self.is_short
        segments = _segments(calls, self.slices) if side_by_side else [[position] for position in range(len(calls))]
        lives = memory.lifetimes(self.program, self.slices, segments, self.scratches)
        buffers.memory, self.nbytes = memory.allocate(lives)
        self.tasks = [bind() for bind in binds]
        self.segments = segments
        self.work = [self._together(segment) for segment in segments]
        self.replayed: list[Task] | None = None
        self.weights = [] if written else [bindings[name] for name in program.bound]
        self.packed = -1  # version of the weights that constant convolutions have packed; −1 before the first call
        self.outputs: dict[ArrayName, HostArray] = {}
        self.fetch: list[Task] = []
        self.unprepared: list[Bind] | None = kernels
        for name, value in self.program.outputs.items():
            self._return(name, value)

    def __call__(self, feed: Feed, watch: Watch | None = None) -> dict[ArrayName, Array]:
        """Run all tasks; the first call compiles their kernels before it runs them.

        A short step's tasks are recorded in the second call, and replayed from then on.

        Raises:
            ConfigurationError: If an array of the feed has another shape or dtype than in the program.
        """
        self._check(feed)
        if self.unprepared is not None:
            prepare(self.buffers.threads, partial(self._rehearse, self.unprepared, feed))
            self.unprepared = None
        for array in self.written:  # before they are written: Ctrl-C may come when some are
            array.version += 1
        version = sum(array.version for array in self.weights)
        with np.errstate(all="ignore"):  # values that are not finite flow on; training's guards notice them
            self.buffers.follow(feed)
            if watch is not None:
                self._watched(feed, watch)
            elif not self.is_short or version != self.packed:
                for work in self.work:
                    work(feed)
            else:
                self.replayed = self.replayed or self._record(feed)
                for work in self.replayed:
                    work(feed)
            for fetch in self.fetch:
                fetch(feed)
        self.packed = version  # only now: after Ctrl-C some convolutions may not have packed theirs
        return dict(self.outputs)

    def _check(self, feed: Feed) -> None:
        """Refuse arrays that kernels would read beyond their ends, or as other numbers."""
        for name, value in self.program.fed.items():
            shape, dtype = feed[name].shape, feed[name].dtype
            if shape != value.shape or dtype != value.dtype:
                raise ConfigurationError(f"expected {name.role} {value.shape} {value.dtype}; got {shape} {dtype}")

    def _rehearse(self, kernels: Sequence[Bind], feed: Feed) -> None:
        """Rehearse on tasks of its own, since some keep state; one at a time, since each allocates memory."""
        for bind in kernels:
            bind()(feed)
        for task in self.fetch:
            task(feed)
        if self.is_short:
            Tape(self.buffers.threads, [], {}).replay({})

    def _record(self, feed: Feed) -> list[Task]:
        """The same work with as few tasks as possible: adjacent segments that only launch kernels become a tape.

        It is recorded with other arrays than the feed's, which may be one for several names, or not contiguous.
        """
        fed = self.program.fed.items()
        feed = {**feed, **{name: HostArray(np.empty(value.shape, value.dtype), value.device) for name, value in fed}}
        made: list[Task] = []
        phases: list[Phase] = []
        for segment, work in [*zip(self.segments, self.work, strict=True), ((), None)]:
            operations = {self.program.calls[position].operation for position in segment}
            if work and operations.isdisjoint(IN_PYTHON) and operations.isdisjoint(FUNCTIONS):
                phases += self._phases(segment, feed)
                continue
            if phases:
                made.append(Tape(self.buffers.threads, phases, feed).replay)
                phases = []
            if work:
                made.append(work)
        return made

    def _phases(self, segment: Sequence[int], feed: Feed) -> list[Phase]:
        """What a segment launches: columns side by side, or one launch after another, each on all threads."""
        columns: dict[int, list[Launch]] = {}
        for position in segment:
            launches = columns.setdefault(self.program.calls[position].column, [])
            self.buffers.threads.rehearse(partial(self.tasks[position], feed), launches.append)
        if len(columns) > 1:
            return [[[part for launch in launches for part in whole(launch)] for launches in columns.values()]]
        return [split(launch, self.buffers.threads.count) for launches in columns.values() for launch in launches]

    def _watched(self, feed: Feed, watch: Watch) -> None:
        before = None
        for call, task in zip(self.program.calls, self.tasks, strict=True):
            where = call.layer, call.column, call.phase
            if where != before:
                watch(*where)
                before = where
            task(feed)

    def _together(self, segment: Sequence[int]) -> Task:
        """Make one task of a segment's calls, with each column on a thread of its own."""
        columns: dict[int, list[Task]] = {}
        for position in segment:
            columns.setdefault(self.program.calls[position].column, []).append(self.tasks[position])
        branches = list(columns.values())
        if len(branches) == 1:
            return partial(_run_branches, 0, 0, 1, branches)
        run = self.buffers.threads.run
        return lambda feed: run(_run_branches, len(branches), branches, feed, pieces=len(branches))

    def _return(self, name: ArrayName, value: Value) -> None:
        """Register an output, and the task that converts it to the protocol's form after every step."""
        if value in self.slices.names:
            raise Unsupported("an output that is given")
        rows = flat, _, distance = self.buffers.rows(value)
        is_rows = len(value.shape) == 2 and distance == row_width(value)
        if len(value.shape) < 2 or is_rows or (value in self.slices.plain and value not in self.slices.parents):
            array = flat[: math.prod(value.shape)].reshape(value.shape)
        else:
            array = np.empty(value.shape, value.dtype)
            self.fetch.append(self._fetch(value, rows, array))
        self.outputs[name] = HostArray(array, value.device)

    def _fetch(self, value: Value, rows: Rows, array: np.ndarray[Any, Any]) -> Task:
        N, C, *others = value.shape
        places = math.prod(others)
        if value.dtype == np.uint8:
            flat, first, distance = rows
            source = flat.reshape(N, places, distance)[:, :, first : first + C].transpose(0, 2, 1)
            return lambda feed: np.copyto(array.reshape(N, C, places), source)
        target = array.reshape(-1), 0, C * places
        run = self.buffers.threads.run
        return lambda feed: run(channels_first_kernel, items(N, places), rows, target, C, places)


def _run_branches(worker: int, begin: int, end: int, branches: list[list[Task]], feed: Feed) -> None:
    for branch in branches[begin:end]:
        for task in branch:
            task(feed)


def _written_in_place(call: Call, slices: Slices) -> list[ArrayName]:
    """Names of the bound arrays that a call writes."""
    if call.operation == "sgd_update":
        return [slices.names[value] for value in call.args[:2]]
    if call.operation == "linear_backward" and len(call.args) == 4:
        return [slices.names[value] for value in values(call.args[2:])]
    return []


def _multiply_adds(calls: Sequence[Call]) -> int:
    """Multiply-adds of the convolutions and fully connected layers."""
    count = 0
    for call in calls:
        if call.operation in ("conv2d", "linear"):
            count += row_count(values(call.results)[0]) * sum(math.prod(w.shape) for w in values(call.args[1]))
        elif call.operation in ("conv2d_backward", "linear_backward"):
            count += 2 * row_count(call.args[0][0]) * sum(math.prod(w.shape) for w in call.args[2])
    return count


def _segments(calls: Sequence[Call], slices: Slices) -> list[list[int]]:
    """Positions of calls, cut into segments within which no column touches what another one writes.

    Where kernels are so short that waking the other threads costs as much as the work, each thread works on a column
    of its own, and they synchronise only where columns read each other.
    """
    segments: list[list[int]] = []
    alone = True
    for position, call in enumerate(calls):
        joined = call.operation in ("augment", "copy", "zeros", *OVER_RANKS, *SUMS) or any(
            isinstance(argument, list) and len(argument) > 1 for argument in call.args
        )
        if alone or joined or _meets(call, [calls[other] for other in segments[-1]], slices):
            segments.append([position])
        else:
            segments[-1].append(position)
        alone = joined
    return segments


def _meets(call: Call, segment: Sequence[Call], slices: Slices) -> bool:
    """Whether a call conflicts with a segment: one writes what the other, in another column, reads or writes."""
    others = [other for other in segment if other.column != call.column]
    written = [value for other in others for value in values(other.results)]
    reached = [value for other in others for value in memory.touched(other)]
    return any(slices.overlap(a, b) for a in memory.touched(call) for b in written) or any(
        slices.overlap(a, b) for a in values(call.results) for b in reached
    )
