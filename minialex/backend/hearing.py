"""Progress of what a backend does before it can compute, such as compiling, reported to a listener."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[[str, int, int, str], None]
"""Takes what is done, how many are done, of how many, and what is counted: "compiling kernels", 12, 57, "kernels"."""

_hearer: ContextVar[Tell] = ContextVar("hearer")


def hearer() -> Tell:
    """The listener of this thread; if there is none, a function that ignores its arguments."""
    return _hearer.get(lambda what, done, total, unit: None)


@contextmanager
def hearing(tell: Tell) -> Iterator[None]:
    """Listen during the block."""
    before = _hearer.set(tell)
    try:
        yield
    finally:
        _hearer.reset(before)
