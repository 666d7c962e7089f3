"""A group whose ranks are processes started by MPI, on one machine or many; through mpi4py."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.errors import ConfigurationError, RankLost
from minialex.ranks.group import Arrays, FixedOrder, Floats, Place
from minialex.ranks.watch import Watch
from minialex.screen.streams import complain

ITEM = 1 << 9
"""Bytes of an item that fit in the first message; longer items need a second."""

LAST_WORDS = 1 << 11
"""Bytes of the message at the end."""

PATIENCE = 3.0
"""Seconds that a failed rank waits for the others to fail likewise before it ends them."""

KEPT = ConfigurationError.exit_code, 130
"""Exit codes that a single rank passes to all: only the first writes a run folder, and Ctrl-C is not an error."""

PIECE = 1 << 26
"""Bytes of an array sent at a time."""


class MpiGroup(FixedOrder):
    """The ranks of a communicator; see `minialex.ranks.group.Group`.

    Args:
        comm: an mpi4py communicator of all ranks
        watch: waits for requests, and ends all ranks if one is lost

    Attributes:
        watch: the same
    """

    def __init__(self, comm: Any, watch: Watch) -> None:
        from mpi4py import MPI

        self._mpi, self.watch = MPI, watch
        self._begun: dict[int, Sequence[Any]] = {}
        self._comm, self._sums, self._last = comm.Dup(), comm.Dup(), comm.Dup()
        self.rank: int = comm.Get_rank()
        self.size: int = comm.Get_size()
        name = MPI.Get_library_version().split("\n")[0].replace("\t", " ").strip(" \0")
        self.engine = " ".join(name.replace("MPICH Version:", "mpich").split()[:4]).rstrip(",")
        own = [platform.node(), os.getpid()]
        found = self.exchange(own)
        hosts = [host for host, _ in found]
        self.places = tuple(Place(host, pid, hosts[:rank].count(host)) for rank, (host, pid) in enumerate(found))

    def __str__(self) -> str:
        hosts = len({place.host for place in self.places})
        return f"{self.size} ranks on {hosts} host{'s' if hosts > 1 else ''} ({self.engine})"

    def _wait(self, *requests: Any) -> None:
        """Wait for all requests. If interrupted, keep them and their arrays: other ranks may still read these."""
        self._begun[id(requests)] = requests
        for request in requests:
            self.watch.wait(request)
        del self._begun[id(requests)]

    def all_to_all(self, send: Floats, receive: Floats) -> None:
        """See `FixedOrder`."""
        others = [(self.rank + step) % self.size for step in range(1, self.size)]
        requests = [self._sums.Irecv(receive[rank], rank) for rank in others]
        requests += [self._sums.Isend(send[rank], rank) for rank in others]
        self._wait(*requests)

    def all_gather(self, part: Floats, whole: Floats) -> None:
        """See `FixedOrder`."""
        self._wait(self._sums.Iallgather(self._mpi.IN_PLACE, whole))

    def all_reduce(self, arrays: Sequence[Floats], out: Sequence[Floats]) -> None:
        """MPI's own all-reduces, of all arrays at once: their requests are in flight together."""
        if any(array.dtype.char not in "fd" for array in arrays):
            kinds = ", ".join(sorted({array.dtype.name for array in arrays}))
            raise ConfigurationError(f"MPI does not add up {kinds}: leave out --sum engine")
        requests = [
            self._sums.Iallreduce(self._mpi.IN_PLACE if target is source else source, target)
            for source, target in zip(arrays, out, strict=True)
        ]
        self._wait(*requests)

    def exchange(self, item: Any) -> list[Any]:
        """See `Group`; an item's length and its beginning go in one message."""
        text = json.dumps(item).encode()
        every = np.empty((self.size, ITEM), np.uint8)
        head = len(text).to_bytes(8, "little") + text[: ITEM - 8]
        self._wait(self._comm.Iallgather(_padded(head, ITEM), every))
        lengths = [int.from_bytes(row[:8].tobytes(), "little") for row in every]
        contents = [row[8:] for row in every]
        if max(lengths) > ITEM - 8:
            whole = np.empty((self.size, max(lengths)), np.uint8)
            self._wait(self._comm.Iallgather(_padded(text, max(lengths)), whole))
            contents = list(whole)
        return [json.loads(row[:length].tobytes()) for row, length in zip(contents, lengths, strict=True)]

    def broadcast(self, item: Any, arrays: Mapping[str, NDArray[Any]]) -> tuple[Any, Arrays]:
        """See `Group`."""
        kinds = {name: (array.shape, array.dtype.str) for name, array in arrays.items()} if self.rank == 0 else None
        item, kinds = self.exchange([item if self.rank == 0 else None, kinds])[0]
        found: Arrays = {}
        for name, (shape, dtype) in kinds.items():
            own = np.ascontiguousarray(arrays[name]) if self.rank == 0 else np.empty(shape, dtype)
            flat = own.reshape(-1).view(np.uint8)
            for begin in range(0, flat.size, PIECE):
                self._wait(self._comm.Ibcast(flat[begin : begin + PIECE], 0))
            found[name] = own
        return item, found

    def leave(self, code: int, error: str = "") -> int:
        """End together with the others: every exit of a process comes through here.

        If all end alike, one reports the error. If the others go on, and would wait for this one for ever, they are
        ended.

        Args:
            code: this process's own exit code; if it fails alone, it ends with 6, or with one of `KEPT`
            error: the error, in one line; empty if there is none

        Returns:
            The code to exit with.
        """
        own = _padded(json.dumps([code, error[: LAST_WORDS // 8]]).encode(), LAST_WORDS)
        every = np.empty((self.size, LAST_WORDS), np.uint8)
        request = self._last.Iallgather(own, every)
        if not error:
            self._wait(request)
        elif not self._comes(request):
            lost = RankLost(f"rank {self.rank} ({self.places[self.rank]}): {error}")
            self.watch.end(lost, code=code if code in KEPT else lost.exit_code)
        ends = [json.loads(row.tobytes().rstrip(b"\0")) for row in every]
        wrong = [rank for rank, (_, words) in enumerate(ends) if words]
        if wrong:
            first, (code, words) = wrong[0], ends[wrong[0]]
            if first == self.rank:
                others = len(wrong) - 1
                alike = all(ends[rank][1] == words for rank in range(self.size))
                where = "" if alike else f"rank {first} ({self.places[first]}): "
                complain("error", f"{where}{words}" + (f" (and {others} more)" if others and not alike else ""))
        sys.stdout.flush()
        self.watch.close()
        self._mpi.Finalize()
        return code

    def _comes(self, request: Any) -> bool:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if request.Test():
                return True
            time.sleep(0.01)
        return False


def _padded(content: bytes, length: int) -> NDArray[np.uint8]:
    return np.frombuffer(content.ljust(length, b"\0"), np.uint8).copy()
