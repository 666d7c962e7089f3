"""A recorded sequence of kernels, replayed on several threads without Python between them.

In a small network Python takes about as long to call a kernel as the kernel takes; two Python threads that each call
their own kernels wait for each other's turn, and to wake a thread takes longer still. So what a step launches is
recorded once (`Threads.rehearse`), each kernel's arguments are packed into a block (`minialex_numba.runtime.packed`),
and a step is a single call: every thread goes through the phases, takes what is left of each, and waits for the others
by looking.

The arrays must stay where they are. Those of the feed may change: their addresses are set again before each replay.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call"
from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic as untyped_intrinsic

from minialex.backend.pretend import HostArray
from minialex.backend.program import ArrayName
from minialex_numba.runtime.buffers import Feed
from minialex_numba.runtime.jit import kernel
from minialex_numba.runtime.packed import ENTRY, I32, I64, address_of, entry_of, packed
from minialex_numba.runtime.threads import Launch, Threads

intrinsic: Any = untyped_intrinsic

Strand = Sequence[tuple[Launch, int, int]]
"""What one thread does, one after another: launches, with their first item and the one after their last."""
Phase = Sequence[Strand]
"""Strands that may run at the same time."""

PIECES = 4
"""Pieces of a launch per thread, so that a thread that begins late does fewer."""
LINE = 8
"""Numbers in a cache line: the counter of ended strands that threads look at has one for each phase."""
LOOKS = 2000
"""Looks at a counter, much shorter than a wake-up, before a thread that waits lets others have its core."""


def _give_way() -> int:
    """Address of the system's function that lets other threads run: without arguments, it returns an integer."""
    library = ctypes.WinDLL("kernel32") if os.name == "nt" else ctypes.CDLL(None)
    function = library.SwitchToThread if os.name == "nt" else library.sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


GIVE_WAY = _give_way()


@intrinsic
def call_entry(typing, address, worker, begin, end, block):
    """Call a kernel's entry; return its code, 0 if nothing is wrong."""

    def generate(context, builder, signature, arguments):
        function, *span, words = arguments
        pointer = builder.inttoptr(words, I64.as_pointer())
        code = builder.call(builder.inttoptr(function, ENTRY.as_pointer()), [*span, pointer])
        return builder.sext(code, I64)

    return types.int64(*(types.int64,) * 5), generate


@intrinsic
def give_way(typing, address):
    """Let other threads have this core."""

    def generate(context, builder, signature, arguments):
        function = builder.inttoptr(arguments[0], ir.FunctionType(I32, []).as_pointer())
        return builder.sext(builder.call(function, []), I64)

    return types.int64(types.int64), generate


def _place(context, builder, signature, arguments):
    array = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [arguments[1]])


@intrinsic
def count_up(typing, counters, i):
    """Add 1 to counters[i], in one step that no other thread can divide; return what it was."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", _place(context, builder, signature, arguments), ir.Constant(I64, 1), "acq_rel")

    return types.int64(counters, types.intp), generate


@intrinsic
def look(typing, counters, i):
    """counters[i]; whoever sees it counted up also sees what was written before that."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)

    return types.int64(counters, types.intp), generate


@kernel
def replay_kernel(worker, begin, end, threads, phases, strands, calls, taken, ended, failed, yields):
    """Each item is a thread's part: every thread goes through all phases.

    In each phase it begins at a strand of its own, so that it finds in its cache what it wrote before, and then takes
    those that others have left.
    """
    for phase in range(len(phases)):
        first, count = phases[phase, 0], phases[phase, 1]
        offset = worker * count // threads
        for i in range(count):
            strand = first + (offset + i) % count
            if look(taken, strand) == 0 and count_up(taken, strand) == 0:
                for call in range(strands[strand, 0], strands[strand, 1]):
                    if call_entry(calls[call, 0], worker, calls[call, 1], calls[call, 2], calls[call, 3]) != 0:
                        failed[0] = call + 1
                count_up(ended, phase * LINE)
        looks = 0
        while look(ended, phase * LINE) < count:
            looks += 1
            if looks > LOOKS:
                give_way(yields)


class Tape:
    """Phases of launches, ready to be replayed.

    Args:
        threads: that share the work
        phases: in order; a phase begins when all strands of the one before have ended
        feed: the arrays of a feed, as they were when the launches were recorded
    """

    def __init__(self, threads: Threads, phases: Sequence[Phase], feed: Feed) -> None:
        self._threads = threads
        self._held: list[Any] = []  # the arrays that blocks point to
        self._fed: list[tuple[ArrayName, np.ndarray[Any, Any], int]] = []  # whose address goes where in which block
        where = {address_of(array.data): name for name, array in feed.items() if isinstance(array, HostArray)}
        blocks: dict[int, tuple[int, int]] = {}
        calls: list[tuple[int, ...]] = []
        strands: list[tuple[int, ...]] = []
        spans: list[tuple[int, ...]] = []
        for phase in phases:
            spans.append((len(strands), len(phase)))
            for strand in phase:
                first = len(calls)
                for launch, begin, end in strand:
                    if id(launch) not in blocks:
                        blocks[id(launch)] = entry_of(launch.kernel, launch.arguments), self._block(launch, where)
                    entry, block = blocks[id(launch)]
                    calls.append((entry, begin, end, block))
                strands.append((first, len(calls)))
        tables = (spans, 2), (strands, 2), (calls, 4)
        self._tables = [np.array(table, np.int64).reshape(-1, width) for table, width in tables]
        self._taken = np.zeros(len(strands), np.int64)
        self._ended = np.zeros(len(spans) * LINE, np.int64)
        self._failed = np.zeros(1, np.int64)  # the number of a call whose kernel raised an exception, from 1
        self._names = [launch.kernel.__name__ for phase in phases for strand in phase for launch, *_ in strand]

    def _block(self, launch: Launch, where: dict[int, ArrayName]) -> int:
        block = packed(launch.arguments)
        for i, word in enumerate(block.tolist()):
            if word in where:
                self._fed.append((where[word], block, i))
        self._held += [block, launch]
        return address_of(block)

    def replay(self, feed: Feed) -> None:
        """Do it all.

        Raises:
            RuntimeError: If a kernel raised an exception.
        """
        arrays = [np.ascontiguousarray(feed[name].data) for name, _, _ in self._fed]  # held until the end
        for array, (_, block, i) in zip(arrays, self._fed, strict=True):
            block[i] = address_of(array)
        for counters in (self._taken, self._ended, self._failed):
            counters.fill(0)
        count = self._threads.count
        self._threads.run(
            replay_kernel, count, count, *self._tables, self._taken, self._ended, self._failed, GIVE_WAY, pieces=count
        )
        if failed := int(self._failed[0]):
            raise RuntimeError(f"{self._names[failed - 1]} failed in a compiled step")


def split(launch: Launch, threads: int) -> Phase:
    """A phase in which threads share a launch's items."""
    pieces = launch.pieces or max(1, min(launch.items // max(launch.grain, 1), PIECES * threads))
    if threads == 1 and launch.pieces is None:
        pieces = 1
    return [[part] for part in _parts(launch, pieces)]


def whole(launch: Launch) -> Strand:
    """A strand in which one thread does all of a launch."""
    return _parts(launch, launch.pieces or 1)


def _parts(launch: Launch, pieces: int) -> Strand:
    return [(launch, piece * launch.items // pieces, (piece + 1) * launch.items // pieces) for piece in range(pieces)]
