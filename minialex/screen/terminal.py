"""The console that all commands print to, and how far long work is: one bar for all of them."""

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
"""Between plain lines where there is no terminal."""


def console(least: int | None = None, *, fold: bool = False, stderr: bool = False) -> Console:
    """Standard output, or standard error; made when it is needed, so that it follows a redirection.

    What is printed is never markup, and what a terminal would obey is escaped: see `minialex.screen.escaping`.

    Args:
        least: characters that a line has at least, for wide tables; None: lines are not broken
        fold: on a terminal that is narrower, tables of words are folded to its width
        stderr: standard error is meant
    """
    from minialex.screen import escaping

    own = escaping.Console(stderr=stderr)
    width = None if least is None or (fold and own.is_terminal) else max(own.width, least)
    return escaping.Console(
        width=width, stderr=stderr, soft_wrap=least is None, highlight=False, markup=False, emoji=False,
        force_jupyter=False,  # plain text in a notebook, too, which needs no widgets there
    )  # fmt: skip


def document(text: str) -> None:
    """Print lines as they are, for a file or another program: a recipe, JSON, Markdown."""
    print(plain(text, keep="\n\t"))


@contextmanager
def waiting(screen: Console, what: str) -> Iterator[Callable[[str], None]]:
    """A sign of life while something takes long, on a terminal only; the function that is given changes the words."""
    from rich.text import Text

    with screen.status(Text(plain(what))) as status:
        yield lambda words: status.update(Text(plain(words)))


def say(screen: Console, text: str, style: str | None = None) -> None:
    """Print a sentence: on a terminal it is broken between words, elsewhere it is one line."""
    screen.print(text, style=style, soft_wrap=not screen.is_terminal, highlight=False, markup=False)


class Meter:
    """How far long work is: a bar on a terminal, which goes when the next begins; a plain line now and then elsewhere.

    Args:
        screen: where it is shown; bars fit 80 columns
        unit: of what is counted
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
        """So many units of some work are done, of so many if that is known; without a note, speed and time left."""
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
    """A meter of one piece of work; the function that is given is told how much is done."""
    with metered(screen, unit) as meter:
        yield lambda done: meter.tell(what, done, total)
