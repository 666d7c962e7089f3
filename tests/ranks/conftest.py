"""A group whose ranks are threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from minialex.ranks.group import Arrays, FixedOrder, Place


@dataclass
class Table:
    """What the threads put down for each other."""

    size: int
    barrier: threading.Barrier = field(init=False)
    items: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=30)
        self.items = [None] * self.size


class ThreadGroup(FixedOrder):
    engine = "threads"

    def __init__(self, rank: int, table: Table) -> None:
        self.rank, self.size, self.table = rank, table.size, table
        self.places = tuple(Place("here", 0, rank) for rank in range(self.size))

    def _all(self, item: Any) -> list[Any]:
        self.table.items[self.rank] = item
        self.table.barrier.wait()
        found = list(self.table.items)
        self.table.barrier.wait()
        return found

    def all_to_all(self, send: Any, receive: Any) -> None:
        receive[...] = [rows[self.rank] for rows in self._all(send.copy())]

    def all_gather(self, part: Any, whole: Any) -> None:
        whole[...] = self._all(part.copy())

    def exchange(self, item: Any) -> list[Any]:
        return self._all(item)

    def broadcast(self, item: Any, arrays: Mapping[str, Any]) -> tuple[Any, Arrays]:
        found, given = self._all((item, arrays))[0]
        return found, {name: np.array(array) for name, array in given.items()}


def together(size: int, work: Callable[[ThreadGroup], Any]) -> list[Any]:
    """What the work of each rank returns."""
    table = Table(size)
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadGroup(rank, table))
        except BaseException as error:
            results[rank] = error
            table.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, threading.BrokenBarrierError):
            raise result
    return results


@pytest.fixture(name="together", scope="session")
def _together() -> Callable[[int, Callable[[ThreadGroup], Any]], list[Any]]:
    return together
