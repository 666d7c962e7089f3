"""A step's schedule as data: which operation runs on which stream, what waits for what, and where results are stored.

Every column has its own stream on its device, and a second one for copies to it from other devices. Within a stream
work runs in order; between streams events keep the order. This module determines which events are needed, from which
operations write and read which bytes, not from rules about networks. Memory is planned here too, once: results that
only one stream uses share its arena by their lifetimes; whatever another stream reads or writes has memory of its own,
which nothing else ever uses.

Nothing here depends on a device. `tests/cuda/test_schedule.py` runs schedules on streams in random legal orders.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from minialex.backend.program import Call, Program, Value, values

StreamName = tuple[str, int, str]
"""(device, column, ``"compute"``, ``"copy"`` or ``"reduce"``); `RESULT` names a device's arena of outputs, never a
stream."""

RESULT = "result"

ALIGNMENT = 256
"""Alignment of every result's address, in bytes."""

IN_PLACE = {"sgd_update": (0, 1), "sgd_updates": (0, 1, 3)}
"""Positions of the arguments that an operation writes."""


def in_place(call: Call) -> list[Value]:
    """The arguments that a call writes."""
    return values([call.args[i] for i in IN_PLACE.get(call.operation, ())])


@dataclass(frozen=True)
class Task:
    """One operation of the schedule.

    Attributes:
        call: the operation
        stream: the stream on which it runs
        waits: indices of tasks on other streams that must finish first
    """

    call: Call
    stream: StreamName
    waits: tuple[int, ...]


@dataclass(frozen=True)
class Slot:
    """Where a result is stored: an offset (bytes) in its stream's arena, or in the arena of outputs."""

    stream: StreamName
    offset: int


@dataclass(frozen=True)
class Schedule:
    """A step that is ready to run.

    Attributes:
        tasks: in a valid order of launches
        slots: where every result is stored
        aliases: values that are another value reshaped
        arenas: bytes of each stream's arena
    """

    tasks: tuple[Task, ...]
    slots: Mapping[Value, Slot]
    aliases: Mapping[Value, Value]
    arenas: Mapping[StreamName, int]

    @property
    def streams(self) -> tuple[StreamName, ...]:
        """All streams, in the order of their first task."""
        return tuple(dict.fromkeys(task.stream for task in self.tasks))

    @property
    def recorded(self) -> frozenset[int]:
        """Tasks that others wait for."""
        return frozenset(index for task in self.tasks for index in task.waits)

    def stretches(self) -> list[tuple[int, ...]]:
        """Tasks of one stream between two moments at which streams wait for each other, in a valid order of launches.

        Only the first task of a stretch waits, and only the last is waited for.
        """
        found: list[list[int]] = []
        unended: dict[StreamName, list[int]] = {}
        waited_for = self.recorded
        for index, task in enumerate(self.tasks):
            if task.waits or task.stream not in unended:
                unended[task.stream] = []
                found.append(unended[task.stream])
            unended[task.stream].append(index)
            if index in waited_for:
                del unended[task.stream]
        return [tuple(stretch) for stretch in found]


def stream_of(call: Call) -> StreamName:
    """The stream of a call: its column's, on the device of its result.

    Sums over ranks share one stream for all columns of a device: their order must be the same on all ranks.
    """
    found = next((value for value in call.results if value is not None), None) or values((call.args, call.kwargs))[0]
    if call.operation == "sum_over_ranks":
        return found.device, 0, "reduce"
    return found.device, call.column, "copy" if call.operation == "copy_to" else "compute"


def plan(program: Program, more: Iterable[Value] = ()) -> Schedule:
    """The schedule of a program's calls; `more` names further arrays that outlive a step."""
    aliases = {
        call.results[0]: call.args[0] for call in program.calls if call.operation == "reshape" and call.results[0]
    }

    def root(value: Value) -> Value:
        while value in aliases:
            value = aliases[value]
        return value

    work = [call for call in program.calls if call.operation != "reshape"]
    streams = [stream_of(call) for call in work]
    reads = [[root(v) for v in values((call.args, call.kwargs))] for call in work]
    writes = [[v for v in call.results if v is not None] + [root(v) for v in in_place(call)] for call in work]
    outputs = {root(value) for value in program.outputs.values()}
    given = {*program.bound.values(), *program.fed.values(), *more}
    _check_order(work, reads, writes, given)
    slots, arenas = _place(streams, reads, writes, outputs, given)
    waits = _order(streams, reads, writes, slots)
    tasks = tuple(Task(*parts) for parts in zip(work, streams, waits, strict=True))
    return Schedule(tasks, slots, {value: root(value) for value in aliases}, arenas)


def _check_order(
    work: Sequence[Call], reads: Sequence[Sequence[Value]], writes: Sequence[Sequence[Value]], given: set[Value]
) -> None:
    """Check that everything an operation reads is an input or was written by an earlier one.

    Raises:
        AssertionError: If an operation reads too early; the message names it.
    """
    known = set(given)
    for call, ins, outs in zip(work, reads, writes, strict=True):
        if not known.issuperset(ins):
            raise AssertionError(
                f"{call.operation} of {call.layer} reads an array that no earlier operation has written"
            )
        known.update(outs)


# ---- memory ---------------------------------------------------------------------------------------------------


@dataclass
class _Arena:
    """Free ranges of bytes, first fit."""

    size: int = 0
    free: list[tuple[int, int]] = field(default_factory=list)  # (offset, bytes), by offset

    def take(self, nbytes: int) -> int:
        for position, (offset, room) in enumerate(self.free):
            if room >= nbytes:
                self.free[position : position + 1] = [(offset + nbytes, room - nbytes)] if room > nbytes else []
                return offset
        if self.free and self.free[-1][0] + self.free[-1][1] == self.size:  # the last range may grow
            offset, _ = self.free.pop()
        else:
            offset = self.size
        self.size = offset + nbytes
        return offset

    def give(self, offset: int, nbytes: int) -> None:
        ranges = sorted([*self.free, (offset, nbytes)])
        merged = [ranges[0]]
        for begin, room in ranges[1:]:
            if sum(merged[-1]) == begin:
                merged[-1] = merged[-1][0], merged[-1][1] + room
            else:
                merged.append((begin, room))
        self.free = merged


def aligned(nbytes: int) -> int:
    """A number of bytes, at least one, rounded up to the alignment."""
    return max(1, -(-nbytes // ALIGNMENT)) * ALIGNMENT


def _place(
    streams: Sequence[StreamName],
    reads: Sequence[Sequence[Value]],
    writes: Sequence[Sequence[Value]],
    outputs: set[Value],
    given: set[Value],
) -> tuple[dict[Value, Slot], dict[StreamName, int]]:
    """A slot for every result. Outputs, and results that several streams touch, keep theirs for the whole step."""
    last: dict[Value, int] = {}
    users: dict[Value, set[StreamName]] = defaultdict(set)
    for index, (stream, ins, outs) in enumerate(zip(streams, reads, writes, strict=True)):
        for value in (*ins, *outs):
            last[value] = index
            users[value].add(stream)
    forever = outputs | {value for value, found in users.items() if len(found) > 1}
    ends: dict[int, list[Value]] = defaultdict(list)
    for value, index in last.items():
        if value not in given and value not in forever:
            ends[index].append(value)
    arenas: dict[StreamName, _Arena] = defaultdict(_Arena)
    slots: dict[Value, Slot] = {}
    for index, (stream, outs) in enumerate(zip(streams, writes, strict=True)):
        for value in outs:
            if value not in given and value not in slots:
                name = (stream[0], 0, RESULT) if value in outputs else stream
                slots[value] = Slot(name, arenas[name].take(aligned(value.nbytes)))
        for value in ends[index]:
            arenas[slots[value].stream].give(slots[value].offset, aligned(value.nbytes))
    return slots, {stream: arena.size for stream, arena in arenas.items()}


# ---- order ----------------------------------------------------------------------------------------------------


def _order(
    streams: Sequence[StreamName],
    reads: Sequence[Sequence[Value]],
    writes: Sequence[Sequence[Value]],
    slots: Mapping[Value, Slot],
) -> list[tuple[int, ...]]:
    """For each task, the smallest set of others that it must wait for.

    Two tasks that touch the same bytes, at least one of them writing, run in the given order. A stream need not wait
    again for what it has already waited for, directly or transitively (vector clocks).
    """
    touched: list[tuple[int, Value, bool]] = []  # (task, value, whether it was written)
    position: dict[StreamName, int] = defaultdict(int)
    clocks: list[dict[StreamName, int]] = []  # per task: how far each stream has come when it is done
    now: dict[StreamName, dict[StreamName, int]] = defaultdict(dict)
    result = []
    for index, (stream, ins, outs) in enumerate(zip(streams, reads, writes, strict=True)):
        needed = set()
        for earlier, value, written in touched:
            for other, writing in (*((v, False) for v in ins), *((v, True) for v in outs)):
                if (written or writing) and _same_bytes(value, other, slots):
                    needed.add(earlier)
        clock = now[stream]
        waits = []
        for earlier in sorted(needed, reverse=True):
            there = streams[earlier]
            if there != stream and clock.get(there, 0) < clocks[earlier][there]:
                waits.append(earlier)
                for name, done in clocks[earlier].items():
                    clock[name] = max(clock.get(name, 0), done)
        position[stream] += 1
        clock[stream] = position[stream]
        clocks.append(dict(clock))
        result.append(tuple(sorted(waits)))
        touched += [(index, value, False) for value in ins] + [(index, value, True) for value in outs]
    return result


def _same_bytes(first: Value, second: Value, slots: Mapping[Value, Slot]) -> bool:
    if first is second:
        return True
    if first not in slots or second not in slots:
        return False
    a, b = slots[first], slots[second]
    return (
        a.stream == b.stream
        and a.offset < b.offset + aligned(second.nbytes)
        and b.offset < a.offset + aligned(first.nbytes)
    )
