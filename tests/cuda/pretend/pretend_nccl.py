"""A pretend NCCL over a pretend driver, for CuPy's own module: one process is really here, the others are pretended.

The others have the numbers that a test gave them (`Library.theirs`), and do what `minialex_cuda.ops.sum_over_ranks`
says: first everybody's numbers of a part go to whoever adds that part up, then its sums go to all. Everything is done
late, on the stream that it was asked for. What is against NCCL's rules is refused and kept in the driver's `broken`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pretend_driver
from pretend_driver import Driver, Refused, library, put, undefined

INVALID_ARGUMENT, INVALID_USAGE = 4, 5
TEXTS = {0: b"no error", 1: b"unhandled cuda error", 2: b"unhandled system error", 4: b"invalid argument",
         5: b"invalid usage", 6: b"remote process exited or there was a network error"}  # fmt: skip
DTYPES = {7: np.dtype(np.float32), 8: np.dtype(np.float64)}
SUM = 0


class Ident(ctypes.Structure):
    """``ncclUniqueId``, which is passed by its value."""

    _fields_ = [("internal", ctypes.c_char * 128)]


@dataclass
class Comm:
    """A communicator."""

    device: int
    size: int
    rank: int
    exchanges: int = 0
    sent: dict[int, list[Any]] = field(default_factory=dict)


@dataclass
class Library:
    """What the library knows.

    Attributes:
        theirs: of every other rank its arrays, flat, in the order in which they are summed
        comms: that are not freed, by their handles
        fails: functions that give an error, with it
        broke: the error that a communicator has come to meanwhile
        streams: handles of those that something was asked on
    """

    theirs: dict[int, list[Any]] = field(default_factory=dict)
    comms: dict[int, Comm] = field(default_factory=dict)
    fails: dict[str, int] = field(default_factory=dict)
    broke: int = 0
    streams: set[int] = field(default_factory=set)


def install(driver: Driver, folder: Path) -> Library:
    """Make and load the library, for the rest of this process; the driver is installed already."""
    it = Library()
    pretend_driver.TYPES["n"] = Ident  # type: ignore[assignment]
    depth = 0
    asked: list[tuple[str, Comm, int, tuple[Any, ...]]] = []

    def failing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: it.fails[name] if name in it.fails else function(*arguments)

    def unique_id(out: int) -> None:
        ctypes.memmove(out, bytes(range(128)), 128)

    def init(out: int, size: int, ident: Ident, rank: int, config: int) -> None:
        driver.not_captured("a communicator is made")
        if bytes(ctypes.string_at(ctypes.addressof(ident), 128)) != bytes(range(128)):
            raise Refused(INVALID_ARGUMENT, "an id that is not the first rank's")
        made = driver.handle()
        it.comms[made] = Comm(max(driver.current, 0), size, rank)
        put(out, made, "Q")

    def comm_of(handle: int) -> Comm:
        if handle not in it.comms:
            raise Refused(INVALID_ARGUMENT, "no communicator, or one that was freed")
        return it.comms[handle]

    def destroy(handle: int) -> None:
        comm_of(handle)
        driver.pump()
        del it.comms[handle]

    def async_error(handle: int, out: int) -> None:
        comm_of(handle)
        put(out, it.broke)

    def begin() -> None:
        nonlocal depth
        depth += 1

    def array(comm: Comm, address: int, count: int, kind: int) -> Any:
        if kind not in DTYPES or count <= 0:
            raise Refused(INVALID_ARGUMENT, f"{count} numbers of type {kind}")
        dtype = DTYPES[kind]
        driver.on(comm.device, address, count * dtype.itemsize, "NCCL's numbers")
        return np.frombuffer((ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address), dtype)

    def take(name: str, handle: int, stream: int, *what: Any) -> None:
        comm = comm_of(handle)
        if not depth:
            raise Refused(INVALID_USAGE, f"{name} outside a group")
        if driver.stream(stream).device != comm.device or max(driver.current, 0) != comm.device:
            raise Refused(INVALID_USAGE, f"{name} on another device than its communicator's")
        it.streams.add(stream)
        asked.append((name, comm, stream, what))

    def send(address: int, count: int, kind: int, peer: int, handle: int, stream: int) -> None:
        take("send", handle, stream, peer, array(comm_of(handle), address, count, kind))

    def receive(address: int, count: int, kind: int, peer: int, handle: int, stream: int) -> None:
        take("receive", handle, stream, peer, array(comm_of(handle), address, count, kind))

    def all_reduce(a: int, b: int, count: int, kind: int, operation: int, handle: int, stream: int) -> None:
        if operation != SUM:
            raise Refused(INVALID_ARGUMENT, f"operation {operation}")
        comm = comm_of(handle)
        take("all_reduce", handle, stream, array(comm, a, count, kind), array(comm, b, count, kind))

    def end() -> None:
        nonlocal depth, asked
        depth -= 1
        if depth < 0:
            raise Refused(INVALID_USAGE, "a group is ended that was not begun")
        group, asked = ([], asked) if depth else (asked, [])
        if not group:
            return
        comms, streams = [one[1] for one in group], {one[2] for one in group}
        if any(comm is not comms[0] for comm in comms) or len(streams) > 1:
            raise Refused(INVALID_USAGE, "a group of several communicators or streams")
        driver.ask(driver.stream(streams.pop()), lambda: work(comms[0], group))

    def work(comm: Comm, group: list[Any]) -> None:
        reduced = [what for name, _, _, what in group if name == "all_reduce"]
        for number, (source, target) in enumerate(reduced):
            total = source.copy()
            for rank in sorted(it.theirs):  # an order of its own
                total += it.theirs[rank][number]
            target[...] = total
        if not reduced:
            exchange(comm, group)

    def exchange(comm: Comm, group: list[Any]) -> None:
        sent: dict[int, list[Any]] = {}
        for name, _, _, (peer, numbers) in group:
            if peer == comm.rank or not 0 <= peer < comm.size:
                driver.broken.append(f"numbers for rank {peer} of {comm.size}, from {comm.rank}")
            if name == "send":
                sent.setdefault(peer, []).append(numbers.copy())
        back = comm.exchanges % 2 == 1
        comm.exchanges += 1
        if not back:
            comm.sent = sent
        coming = {rank: iter(results(comm, rank) if back else parts(comm, rank, comm.rank)) for rank in it.theirs}
        for name, _, _, (peer, numbers) in group:
            if name == "receive":
                numbers[...] = next(coming[peer])
        left = [rank for rank, rest in coming.items() if next(rest, None) is not None]
        if left:
            driver.broken.append(f"ranks {left} sent more than was received")

    def parts(comm: Comm, rank: int, part: int) -> list[Any]:
        """A rank's numbers of a part, of every array that has any there."""
        found = []
        for one in it.theirs[rank]:
            length = -(-one.size // comm.size)
            if len(numbers := one[part * length : (part + 1) * length]):
                found.append(numbers)
        return found

    def results(comm: Comm, part: int) -> list[Any]:
        """What another rank makes of its part: it was sent everybody's numbers."""
        mine = comm.sent.get(part, [])
        everybody = [mine if rank == comm.rank else parts(comm, rank, part) for rank in range(comm.size)]
        return [in_order(numbers) for numbers in zip(*everybody, strict=True)]

    def version(out: int) -> None:
        put(out, 22807)

    text = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_int)(
        lambda code: ctypes.cast(kept.get(code, kept[1]), ctypes.c_void_p).value or 0
    )
    kept = {code: ctypes.create_string_buffer(words) for code, words in TEXTS.items()}
    driver._keep += [text, kept]
    known = {
        "ncclGetUniqueId": (unique_id, "p"), "ncclCommInitRankConfig": (init, "pinip"),
        "ncclCommDestroy": (destroy, "p"), "ncclCommGetAsyncError": (async_error, "pp"),
        "ncclGetVersion": (version, "p"),
        "ncclGroupStart": (begin, ""), "ncclGroupEnd": (end, ""), "ncclSend": (send, "pziipp"),
        "ncclRecv": (receive, "pziipp"), "ncclAllReduce": (all_reduce, "ppziipp"),
    }  # fmt: skip
    found = find_spec("cupy_backends.cuda.libs.nccl")
    assert found is not None
    assert found.origin is not None
    functions = {name: driver.missing(name) for name in undefined(found.origin, "nccl")}
    functions |= {name: driver.function(name, failing(name, part), kinds) for name, (part, kinds) in known.items()}
    functions["ncclGetErrorString"] = text
    library(driver, "libnccl.so.2", functions, folder)
    return it


def in_order(parts: Any) -> Any:
    """The sum of all ranks' numbers in the fixed order: neighbours pairwise within blocks of 2^k, then the blocks."""
    block = len(parts) & -len(parts)
    totals = []
    for first in range(0, len(parts), block):
        level = list(parts[first : first + block])
        while len(level) > 1:
            level = [a + b for a, b in zip(level[::2], level[1::2], strict=True)]
        totals.append(level[0])
    total = totals[0]
    for one in totals[1:]:
        total = total + one
    return total
