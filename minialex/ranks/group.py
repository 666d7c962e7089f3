"""A group of ranks, the processes that train one network together, as one of them sees it; and their sums.

A batch is split into shards: equal parts that are computed separately, by the same kernels on the same shapes. Their
results are summed in one fixed tree, whichever rank computed them: n = 2^k · q parts, q odd, are added pairwise, level
by level, within blocks of 2^k; then the q blocks are added from first to last. A rank with 2^j adjacent parts sums a
subtree of its own; the ranks' sums, in rank order, are added by the same rule. So the bits of a sum depend on the
number of shards, not on the number of ranks.

Alternatively the engine that carries the messages adds, in an order of its own: `bound` limits how much its sums may
differ.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, NamedTuple, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from minialex import errors
from minialex.errors import ConfigurationError
from minialex.ranks.watch import WAITING, beside, doing

How = Literal["fixed", "engine"]
"""What decides the order in which ranks' numbers are added: this module's tree, or the engine that carries them."""

Wait = Callable[[], None]
"""Waits until the operation that was begun is done."""

Part = TypeVar("Part")
Floats = NDArray[np.floating[Any]]
Arrays = dict[str, NDArray[Any]]

CHUNK = 1 << 20
"""Numbers summed at a time: three copies of so many are held, besides the arrays themselves."""


class RunningSum(Generic[Part]):
    """Sums parts as they arrive, in the order of the fixed tree, and holds few of them at a time.

    Args:
        parts: number of parts to come
        add: adds two parts; it may overwrite the first, so parts given to `push` must not be shared

    """

    def __init__(self, parts: int, add: Callable[[Part, Part], Part]) -> None:
        self._total: Part | None = None
        self._parts = parts
        self._block = parts & -parts
        self._add = add
        self._pushed = 0
        self._waiting: list[Part] = []

    def push(self, part: Part) -> Part | None:
        """Take the next part; return the sum if it was the last one."""
        self._pushed += 1
        self._waiting.append(part)
        place = (self._pushed - 1) % self._block + 1
        while place % 2 == 0:
            second, first = self._waiting.pop(), self._waiting.pop()
            self._waiting.append(self._add(first, second))
            place //= 2
        if self._pushed % self._block == 0:
            block = self._waiting.pop()
            self._total = block if self._total is None else self._add(self._total, block)
        return self._total if self._pushed == self._parts else None


def admissible(shards: int) -> tuple[int, ...]:
    """The numbers of ranks that may share `shards` shards: each has 2^j adjacent ones of one block, or one has all."""
    block = shards & -shards
    sizes = {shards // (1 << power) for power in range(block.bit_length())}
    return tuple(sorted({1, *sizes}))


def bound(size: int, magnitudes: Floats) -> Floats:
    """How much an engine's sum over ranks may differ from the sum in the fixed order, elementwise.

    In whatever order n numbers are added, the sum is within γ(n − 1)·Σ|g| of the exact one, with γ(k) = k·u / (1 − k·u)
    and u is half an ulp of 1; so two orders differ by at most twice that. Sums over two ranks agree bitwise: a + b is
    b + a. The bound holds if no order's partial sums overflow.

    Args:
        size: size of the group
        magnitudes: Σ|g|, the sum over the ranks of the numbers' magnitudes
    """
    if size < 3:
        return np.zeros_like(magnitudes)
    roundings = (size - 1) * np.finfo(magnitudes.dtype).eps / 2
    return cast(Floats, magnitudes * magnitudes.dtype.type(2 * roundings / (1 - roundings)))


class Place(NamedTuple):
    """Where a rank runs.

    Attributes:
        host: name of the machine
        pid: process id
        local: number of the rank among those on its machine
    """

    host: str
    pid: int
    local: int

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host}"


class Group(Protocol):
    """The processes that train one network together, as one of them sees it; all call the same methods in one order.

    Attributes:
        rank: number of this process, from 0
        size: number of processes
        engine: what carries their messages, with its version; empty for a single process
        places: where each of them runs
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def engine(self) -> str: ...

    @property
    def places(self) -> tuple[Place, ...]: ...

    def sum(self, arrays: Sequence[Floats], out: Sequence[Floats], how: How = "fixed") -> None:
        """Write the sums of the ranks' arrays into `out`.

        Args:
            arrays: contiguous, of one dtype, with the same shapes on every rank
            out: of the same shapes; may be the arrays themselves
            how: in the order of the fixed tree, or in the engine's own

        Raises:
            ConfigurationError: If the engine cannot add, or cannot add such numbers.
        """
        ...

    def begin_sum(self, arrays: Sequence[Floats], out: Sequence[Floats], how: How = "fixed") -> Wait:
        """Begin the same sum beside this process's further work, which must not touch either until the wait returns.

        Sums run one after another, in the order in which they were begun, and each must be waited for.
        """
        ...

    def all_to_all(self, send: Floats, receive: Floats) -> None:
        """Row r of `send` [size, …] goes to rank r, and becomes the row with this rank's number in its `receive`.

        A rank's row for itself need not be copied.
        """
        ...

    def all_gather(self, part: Floats, whole: Floats) -> None:
        """Every rank's part becomes its row of `whole` [size, …]; its own is already there: `part` is that row."""
        ...

    def exchange(self, item: Any) -> list[Any]:
        """Every rank's item, in rank order; an item is a JSON value."""
        ...

    def broadcast(self, item: Any, arrays: Mapping[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        """Rank 0's item (a JSON value) and arrays by name; the other ranks' arguments are ignored."""
        ...


@dataclass(frozen=True)
class Alone:
    """A process alone, or one that acts for a while as if it were: other ranks' contributions are left out."""

    rank: int = 0
    size: int = 1
    engine: str = ""

    @property
    def places(self) -> tuple[Place, ...]:
        """None: nothing asks for them."""
        return ()

    def sum(self, arrays: Sequence[Floats], out: Sequence[Floats], how: How = "fixed") -> None:
        """The sums are the arrays themselves."""
        for source, target in zip(arrays, out, strict=True):
            if target is not source:
                target[...] = source

    def begin_sum(self, arrays: Sequence[Floats], out: Sequence[Floats], how: How = "fixed") -> Wait:
        """The sums are the arrays themselves, at once."""
        self.sum(arrays, out, how)
        return lambda: None

    def all_to_all(self, send: Floats, receive: Floats) -> None:
        """Receive zeros from the other ranks."""
        receive[...] = 0

    def all_gather(self, part: Floats, whole: Floats) -> None:
        """Write zeros for the other ranks."""
        own = part.copy()
        whole[...] = 0
        whole[self.rank] = own

    def exchange(self, item: Any) -> list[Any]:
        """The item itself."""
        return [item]

    def broadcast(self, item: Any, arrays: Mapping[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        """The arguments themselves."""
        return item, dict(arrays)


ALONE = Alone()


def apart(group: Group) -> Alone:
    """One rank of a group, by itself for a while: it has its own shards and no communication with the others."""
    return Alone(group.rank, group.size)


def by_first(group: Group, work: Callable[[], Any]) -> Any:
    """Do some work on the first rank, and return its result (a JSON value) on all ranks.

    Raises:
        MinialexError: What the first rank's work raised, on all ranks, so that they end alike.
    """
    told: list[Any] = [None, "", ""]
    if group.rank == 0:
        try:
            told = [work(), "", ""]
        except errors.MinialexError as error:
            if group.size == 1:
                raise
            told = [None, type(error).__name__, str(error)]
    result, kind, message = group.exchange(told)[0]
    if kind:
        raise getattr(errors, kind, errors.MinialexError)(message)
    return result


class FixedOrder(ABC):
    """An all-reduce in the fixed order: pieces are exchanged, summed locally in that order, and gathered on all ranks.

    Every rank sums one piece of all ranks' numbers. Nothing here depends on how an engine adds, and each rank sends and
    receives about twice its numbers, the least that any algorithm needs.
    """

    rank: int
    size: int
    engine: str

    @abstractmethod
    def all_to_all(self, send: Floats, receive: Floats) -> None:
        """See `Group.all_to_all`."""

    @abstractmethod
    def all_gather(self, part: Floats, whole: Floats) -> None:
        """See `Group.all_gather`."""

    def all_reduce(self, arrays: Sequence[Floats], out: Sequence[Floats]) -> None:
        """The engine's own all-reduce.

        Raises:
            ConfigurationError: If it has none.
        """
        raise ConfigurationError(f"{self.engine or 'this engine'} does not add up by itself: leave out --sum engine")

    def sum(self, arrays: Sequence[Floats], out: Sequence[Floats], how: How = "fixed") -> None:
        """See `Group.sum`."""
        if how == "engine":
            self.all_reduce(arrays, out)
            return
        sources, targets = ([array.reshape(-1) for array in group] for group in (arrays, out))
        length = -(-min(sum(array.size for array in sources), CHUNK) // self.size)
        received = self._room(0, length, sources[0].dtype)
        for chunk in _chunks([array.size for array in sources], received.size):
            _, index, begin, count = chunk[0]
            whole = count == received.size  # all of one array: it is sent in place
            if whole:
                send, back = (
                    group[index][begin : begin + count].reshape(received.shape) for group in (sources, targets)
                )
            else:
                send = back = pieces = self._room(1, length, received.dtype)
                for at, index, begin, count in chunk:
                    pieces.reshape(-1)[at : at + count] = sources[index][begin : begin + count]
            self.all_to_all(send, received)
            self._add_up(received, send[self.rank], back[self.rank])
            self.all_gather(back[self.rank], back)
            if not whole:
                for at, index, begin, count in chunk:
                    targets[index][begin : begin + count] = back.reshape(-1)[at : at + count]

    def _room(self, number: int, length: int, dtype: np.dtype[Any]) -> Floats:
        """Memory [size, length] that sums use again and again: to touch new memory takes as long as to add."""
        found = self._rooms.get((number, dtype))
        if found is None or found.size < self.size * length:
            found = self._rooms[number, dtype] = np.zeros(self.size * length, dtype)
        return found[: self.size * length].reshape(self.size, length)

    @cached_property
    def _rooms(self) -> dict[tuple[int, np.dtype[Any]], Floats]:
        return {}

    def _add_up(self, received: Floats, own: Floats, total: Floats) -> None:
        """Sum all ranks' numbers in the fixed order, this one's `own` among them; overwrites `received`."""

        def add(a: Floats, b: Floats) -> Floats:
            ours = any(one is own or one is total for one in (a, b))
            return np.add(a, b, out=total if ours else a)

        running: RunningSum[Floats] = RunningSum(self.size, add)
        with np.errstate(all="ignore"):  # non-finite values propagate; training's guards notice them
            found = [running.push(own if rank == self.rank else received[rank]) for rank in range(self.size)][-1]
        if found is not total:  # in a group of one
            total[...] = own

    def begin_sum(self, arrays: Sequence[Floats], out: Sequence[Floats], how: How = "fixed") -> Wait:
        """See `Group.begin_sum`: another thread does it while this one goes on."""
        begun = self._thread.submit(self.sum, arrays, out, how)

        def wait() -> None:
            with doing(WAITING):
                begun.result()

        return wait

    @cached_property
    def _thread(self) -> ThreadPoolExecutor:
        """A single thread, so that all ranks reach their sums in the same order."""
        return ThreadPoolExecutor(1, "sums", beside)


def _chunks(sizes: Sequence[int], room: int) -> Iterator[list[tuple[int, int, int, int]]]:
    """Split arrays of such sizes, in sequence, into chunks: lists of (offset in chunk, array, first number, count)."""
    chunk: list[tuple[int, int, int, int]] = []
    at = 0
    for index, size in enumerate(sizes):
        begin = 0
        while begin < size:
            count = min(size - begin, room - at)
            chunk.append((at, index, begin, count))
            begin, at = begin + count, at + count
            if at == room:
                yield chunk
                chunk, at = [], 0
    if chunk:
        yield chunk
