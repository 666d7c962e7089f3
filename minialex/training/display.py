"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere (a notebook has its own)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from minialex.data import DataSet
from minialex.engine.session import Session
from minialex.screen.formats import duration
from minialex.screen.terminal import QUIET_SECONDS
from minialex.training.listening import Listener

LONG_SECONDS = 1800.0  # a run that would take longer than this is told so after its first steps
MEASURED_SECONDS, MEASURED_STEPS = 5.0, 20  # the first steps end when either is reached


class TrainingDisplay(Listener):
    """Loss, top-1, images a second and the time left; one line an epoch remains."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.loss = self.top1 = 0.0
        self.seen = 0
        self.task = self.progress.add_task("", epoch="", left="", visible=False)
        self.began = self.said = time.monotonic()

    def __enter__(self) -> TrainingDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def say(self, text: str, **how: Any) -> None:
        """A line that remains."""
        self.console.print(text, highlight=False, markup=False, **how)

    def bar(self, done: int, epoch: int, words: str, left: str) -> None:
        """How far the epoch is; a line of it now and then where there is no terminal."""
        self.progress.update(self.task, completed=done, epoch=f"{epoch}/{self.epochs}", description=words, left=left)
        now = time.monotonic()
        if self.progress.disable and now - self.said > QUIET_SECONDS:
            self.said = now
            self.say(f"epoch {epoch}/{self.epochs}  step {done}/{self.steps_per_epoch}  {words}  {left}")

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        recipe = session.recipe
        self.batch_size, self.steps_per_epoch, self.epochs = recipe.batch_size, steps_per_epoch, recipe.epochs
        self.first = step
        self.after_first: float | None = None  # when the first step ended, which may have compiled something
        self.estimated = False
        self.began = self.said = time.monotonic()
        self.progress.update(self.task, total=steps_per_epoch, visible=True)
        self.say(
            f"{recipe.model} in {recipe.columns} column{'s' if recipe.columns > 1 else ''} on {session.backend.name} "
            f"({', '.join(session.plan.placement)}); {data.name}: {len(data.train):,} training and "
            f"{len(data.validation):,} validation images, {len(data.class_names)} classes"
        )
        if step:
            self.say(f"resumed from step {step}")

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        self.seen += 1
        self.estimate(step)
        weight = max(0.05, 1 / self.seen)  # a running mean
        self.loss += weight * (loss - self.loss)
        self.top1 += weight * (top1 - self.top1)
        speed = (step - self.first) * self.batch_size / (time.monotonic() - self.began)
        left = (self.epochs * self.steps_per_epoch - step) * self.batch_size / speed
        epoch, done = divmod(step - 1, self.steps_per_epoch)
        words = f"loss {self.loss:.3f}  top-1 {self.top1:.1%}  {speed:.0f} images/s"
        self.bar(done + 1, epoch + 1, words, f"{duration(left)} left at most")

    def estimate(self, step: int) -> None:
        """Say once, from the first steps but the very first, how long a long run would take here."""
        now = time.monotonic()
        if self.after_first is None:
            self.after_first = now
            return
        elapsed, steps = now - self.after_first, self.seen - 1
        enough = steps >= 3 and elapsed >= MEASURED_SECONDS
        if self.estimated or not (enough or steps >= MEASURED_STEPS or elapsed >= 12 * MEASURED_SECONDS):
            return
        self.estimated = True
        total = self.epochs * self.steps_per_epoch
        left = (total - step) * elapsed / steps
        if left > LONG_SECONDS:
            self.say(
                f"at {steps * self.batch_size / elapsed:,.1f} images/s, measured over {steps} "
                f"step{'s' if steps > 1 else ''}, the {total - step:,} steps of {self.epochs} epochs would take "
                f"{duration(left)} on this machine, validation not counted"
            )

    def validating(self, done: int, images: int) -> None:
        self.progress.update(self.task, left=f"validation {done}/{images}")

    def recorded(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "validation":
            self.say(
                f"epoch {record['epoch']:>3}  training loss {self.loss:.3f}  validation loss {record['loss']:.3f}  "
                f"top-1 error {record['top1_error']:.2%}  top-5 error {record['top5_error']:.2%}  "
                f"{duration(record['seconds'])}"
            )
            self.said = time.monotonic()

    def note(self, message: str) -> None:
        self.say(message)

    def warning(self, message: str) -> None:
        self.say(f"warning: {message}", style="yellow")
