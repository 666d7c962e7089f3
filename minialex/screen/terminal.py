"""The console that all commands print to, and the progress of long work: one bar for all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from minialex.screen.formats import duration, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

QUIET_SECONDS = 20.0
"""Seconds between plain progress lines if there is no terminal."""


def console(least: int | None = None, *, fold: bool = False, stderr: bool = False) -> Console:
    """A console on standard output or standard error, created on demand so that it follows redirection.

    Printed text is never markup, and control characters are escaped: see `minialex.screen.escaping`.

    Args:
        least: minimum line length in characters, for wide tables; None: lines are not broken
        fold: whether to fold tables of text to the width of a narrower terminal
        stderr: whether to use standard error
    """
    from minialex.screen import escaping

    own = escaping.Console(stderr=stderr)
    width = None if least is None or (fold and own.is_terminal) else max(own.width, least)
    return escaping.Console(
        width=width, stderr=stderr, soft_wrap=least is None, highlight=False, markup=False, emoji=False,
        force_jupyter=False,  # plain text in notebooks, too: no widgets needed
    )  # fmt: skip


def document(text: str) -> None:
    """Print lines unchanged, for a file or another program: a recipe, JSON, Markdown."""
    print(plain(text, keep="\n\t"))


@contextmanager
def waiting(screen: Console, what: str) -> Iterator[Callable[[str], None]]:
    """Show activity during long work, on a terminal only; the yielded function changes the text."""
    from rich.text import Text

    with screen.status(Text(plain(what))) as status:
        yield lambda words: status.update(Text(plain(words)))


def say(screen: Console, text: str, style: str | None = None) -> None:
    """Print a sentence: wrapped between words on a terminal, a single line elsewhere."""
    screen.print(text, style=style, soft_wrap=not screen.is_terminal, highlight=False, markup=False)


class Meter:
    """The progress of long work: a bar on a terminal, removed when the next begins; occasional plain lines elsewhere.

    Args:
        screen: where to show it; bars fit in 80 columns
        unit: the unit of what is counted
    """

    def __init__(self, screen: Console, unit: str = "images") -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self.screen, self.unit = screen, unit
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=8 if screen.width < 100 else 20),
            TextColumn("{task.fields[note]}", markup=False),
            console=screen,
            transient=True,
            disable=not screen.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.begun: dict[str, tuple[float, int]] = {}
        self.printed = time.monotonic()

    def tell(self, what: str, done: int, total: int | None = None, note: str = "", unit: str = "") -> None:
        """Report units done, of a total if known; without a note, speed and time left are shown."""
        unit = unit or self.unit
        short = bool(note) and self.screen.width < 100
        now = time.monotonic()
        if what not in self.tasks:
            for task in self.progress.tasks:
                if task.finished or task.total is None:
                    del self.tasks[next(name for name, known in self.tasks.items() if known == task.id)]
                    self.progress.remove_task(task.id)
            self.begun[what] = now, done
            self.tasks[what] = self.progress.add_task(plain(what), total=total, note="", completed=done)
        began, first = self.begun[what]
        rate = (done - first) / max(now - began, 1e-9)
        if not note and rate > 0:
            left = f"{duration((total - done) / rate)} left" if total else ""
            each = unit.removesuffix("s") if round(rate) == 1 else unit
            note = ", ".join(filter(None, (left, f"{rate:,.0f} {each}/s" if rate > 0.5 else "")))
        if self.screen.is_terminal:
            count = "" if short else f"{done:,}/{total:,}" if total else f"{done:,}" if done else ""
            shown = ", ".join(filter(None, (count, note)))
            self.progress.update(self.tasks[what], completed=done, total=total, note=shown)
        elif now - self.printed > QUIET_SECONDS:
            self.printed = now
            count = f"{done:,} of {total:,}" if total else f"{done:,}"
            self.screen.print(", ".join(filter(None, (f"{what}: {count} {unit}", note))))


@contextmanager
def metered(screen: Console, unit: str = "images") -> Iterator[Meter]:
    """A meter that is shown within the block."""
    meter = Meter(screen, unit)
    with meter.progress:
        yield meter


@contextmanager
def counting(screen: Console, what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """A meter for one piece of work; call the yielded function with the amount done."""
    with metered(screen, unit) as meter:
        yield lambda done: meter.tell(what, done, total)
