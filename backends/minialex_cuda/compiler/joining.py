"""Joins the GPUs of several processes with NCCL: a program's sums over ranks then run on the devices.

The processes are MPI's. Through MPI they agree that all have NCCL, and the first sends each communicator's id.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import time
from dataclasses import replace
from typing import Any

from minialex.backend.program import Program
from minialex.errors import MinialexError
from minialex.ranks.group import Alone
from minialex_cuda.ops.sum_over_ranks import Joined
from minialex_cuda.runtime.nccl import INSTALL
from minialex_cuda.runtime.protocol import Event, Runtime

SHORT, PAUSE = 1.0, 5e-5
"""Seconds that the host waits for a step before it asks whether all ranks are alive, and seconds between polls."""


class Nccl:
    """The communicators of a backend, one for each of its devices that takes part in sums.

    Args:
        runtime: the runtime of the devices
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._group: Any = None
        self._there: bool | None = None
        self._joined: dict[str, Joined] = {}

    def joined(self, program: Program) -> Program | None:
        """The program with communicators in place of groups; None if its sums must go through the host.

        All ranks call this together, with equal programs.

        Raises:
            ResourceError: If NCCL is installed and fails.
        """
        calls = []
        for call in program.calls:
            if call.operation != "sum_over_ranks":
                calls.append(call)
                continue
            group = call.kwargs["group"]
            if isinstance(group, Alone) or not self._all_have_it(group):
                return None
            where = self._join(call.args[0][0].device, group)
            calls.append(replace(call, kwargs={**call.kwargs, "group": where}))
        return replace(program, calls=tuple(calls))

    def _all_have_it(self, group: Any) -> bool:
        if self._there is None:
            self._there = all(group.exchange(self._runtime.has_nccl))
            if not self._there and group.rank == 0:
                logging.getLogger("minialex").warning(
                    "gradients are summed through the hosts, which is slower: %s", f"not every rank has NCCL; {INSTALL}"
                )
        return self._there

    def _join(self, device: str, group: Any) -> Joined:
        if device not in self._joined:
            ident = self._runtime.nccl_id() if group.rank == 0 else None
            (ident, *_) = group.exchange(list(ident) if ident else None)
            made = self._runtime.communicator(device, group.size, ident, group.rank)
            if not self._joined:
                atexit.register(self.close)
            self._joined[device] = Joined(group.rank, group.size, made)
            self._group = group
        return self._joined[device]

    def wait(self, event: Event) -> None:
        """Make the host wait until sums are done; if a rank is lost, they never are, and the error names it.

        Raises:
            ResourceError: If NCCL reports an error.
        """
        end = time.monotonic() + SHORT
        while time.monotonic() < end:
            if self._passed(event):
                return
            time.sleep(PAUSE)
        watch = getattr(self._group, "watch", None)
        if watch is not None:
            watch.wait(_Request(lambda: self._passed(event)))

    def _passed(self, event: Event) -> bool:
        for joined in self._joined.values():
            joined.communicator.check()
        return event is None or bool(event.done)

    @property
    def is_used(self) -> bool:
        """Whether there are communicators."""
        return bool(self._joined)

    def close(self) -> None:
        """Free the communicators."""
        while self._joined:
            _, joined = self._joined.popitem()
            with contextlib.suppress(MinialexError):  # the program is ending
                joined.communicator.close()


class _Request:
    """Something that `minialex.ranks.watch.Watch.wait` waits for."""

    def __init__(self, done: Any) -> None:
        self.Test = done
