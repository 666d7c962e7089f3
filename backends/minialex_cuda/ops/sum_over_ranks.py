"""All-reduces over the ranks that share a batch, by NCCL: in the order of `minialex.ranks.group`, or in NCCL's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from minialex.ranks.group import RunningSum
from minialex_cuda.ops.elementwise import add_kernel
from minialex_cuda.runtime.array import CudaArray, Flat
from minialex_cuda.runtime.place import Place


@dataclass(frozen=True)
class Joined:
    """A communicator of one device of every rank.

    Attributes:
        rank, size: number of this rank, and number of ranks
        communicator: the runtime's communicator
    """

    rank: int
    size: int
    communicator: Any


def sum_over_ranks(on: Place, xs: Sequence[CudaArray], *, group: Joined, how: str) -> list[CudaArray]:
    """See `minialex.backend.operations.sum_over_ranks`.

    In the fixed order every rank receives its part of all ranks' numbers, sums it, and sends the sum to all. Parts are
    equal except for the last; if there are few numbers, some ranks have none.
    """
    runtime, stream = on.runtime, on.stream
    sums = [on.empty(x.shape, x.dtype) for x in xs]
    if how == "engine":
        on.do(
            lambda: runtime.all_reduce(
                stream, group.communicator, [(x.flat, y.flat) for x, y in zip(xs, sums, strict=True) if x.size]
            ),
            xs,
            sums,
        )
        return sums
    lengths = [-(-x.size // group.size) for x in xs]
    rooms = [on.scratch((group.size, length), x.dtype) for x, length in zip(xs, lengths, strict=True)]
    others = [rank for rank in range(group.size) if rank != group.rank]

    def numbers(x: CudaArray, begin: int, count: int) -> Flat:
        return runtime.flat(x.flat.memory, x.flat.offset + begin * x.dtype.itemsize, count, x.dtype)

    def work() -> None:
        sends, receives, back, forth = [], [], [], []
        own: list[tuple[list[Flat], Flat]] = []  # per array: all ranks' numbers in this rank's part, and their sum
        for x, y, room, length in zip(xs, sums, rooms, lengths, strict=True):
            parts = [(r * length, max(0, min(length, x.size - r * length))) for r in range(group.size)]
            begin, count = parts[group.rank]
            if count:
                there = [numbers(room, r * length, count) for r in range(group.size)]
                there[group.rank] = numbers(x, begin, count)
                own.append((there, numbers(y, begin, count)))
                receives += [(there[r], r) for r in others]
                back += [(own[-1][1], r) for r in others]
            sends += [(numbers(x, *parts[r]), r) for r in others if parts[r][1]]
            forth += [(numbers(y, *parts[r]), r) for r in others if parts[r][1]]
        if others:
            runtime.exchange(stream, group.communicator, sends, receives)
        for there, total in own:
            mine = there[group.rank]

            def add(a: Flat, b: Flat, mine: Flat = mine) -> Flat:
                target = b if a is mine else a  # the gradient itself is not overwritten
                runtime.launch(stream, add_kernel, int(a.raw.size), [a, b, target])
                return target

            running: RunningSum[Flat] = RunningSum(group.size, add)
            summed = [running.push(part) for part in there][-1]
            assert summed is not None
            runtime.copy(stream, summed, total)
        if others:
            runtime.exchange(stream, group.communicator, back, forth)

    on.do(work, xs, [*sums, *rooms])
    return sums
