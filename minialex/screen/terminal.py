"""The console that all commands print to, and how far long work is: one bar for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minialex.screen.formats import duration

if TYPE_CHECKING:
    from rich.console import Console

QUIET_SECONDS = 20.0
"""Between plain lines where there is no terminal."""


def console(least: int | None = None, *, stderr: bool = False) -> Console:
    """Standard output; made when it is needed, so that it follows a redirection. What is printed is never markup.

    Args:
        least: characters that a line has at least, for wide tables; None: lines are not broken
    """
    from rich.console import Console

    width = None if least is None else max(Console().width, least)
    return Console(
        width=width, stderr=stderr, soft_wrap=least is None, highlight=False, markup=False, emoji=False,
        force_jupyter=False,  # plain text in a notebook, too, which needs no widgets there
    )  # fmt: skip


class Meter:
    """How far long work is: bars on a terminal, a plain line now and then elsewhere."""

    def __init__(self, screen: Console, unit: str = "images") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.screen, self.unit = screen, unit
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeRemainingColumn(),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self.tasks = {"": self.progress.add_task("", visible=False, note="")}
        self.begun: dict[str, tuple[float, int]] = {}
        self.printed = time.monotonic()

    def tell(self, what: str, done: int, total: int | None = None, note: str | None = None) -> None:
        """So many units of some work are done, of so many if that is known; the note is the speed if none is given."""
        now = time.monotonic()
        if what not in self.begun:
            self.begun[what] = now, done
            self.tasks[what] = self.progress.add_task(what, total=total, note="", completed=done)
        began, first = self.begun[what]
        rate = (done - first) / max(now - began, 1e-9)
        speed = f"{rate:,.0f} {self.unit}/s" if done > first else ""
        self.progress.update(self.tasks[what], completed=done, total=total, note=speed if note is None else note)
        if not self.screen.is_terminal and now - self.printed > QUIET_SECONDS:
            self.printed = now
            count = f"{done:,} of {total:,}" if total else f"{done:,}"
            left = f"{duration((total - done) / rate)} left" if total and rate > 0 else ""
            self.screen.print(", ".join(filter(None, (f"{what}: {count} {self.unit}", left, speed))))


@contextmanager
def metered(screen: Console, unit: str = "images") -> Iterator[Meter]:
    """A meter that is shown within the block."""
    meter = Meter(screen, unit)
    with meter.progress:
        yield meter


@contextmanager
def counting(screen: Console, what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """A meter of one piece of work; the function that is given is told how much is done."""
    with metered(screen, unit) as meter:
        yield lambda done: meter.tell(what, done, total)
