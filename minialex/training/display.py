"""What a person sees while a run goes on: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from minialex.data import DataSet
from minialex.engine.session import Session
from minialex.training.loop import Listener

QUIET_SECONDS = 20.0  # between plain lines where there is no terminal
LONG_SECONDS = 1800.0  # a run that would take longer than this is told so after its first steps
MEASURED_SECONDS, MEASURED_STEPS = 5.0, 20  # the first steps end when either is reached


class TrainingDisplay(Listener):
    """Loss, top-1, images a second and the time left; one line an epoch remains."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.live = console.is_terminal
        self.progress = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}  top-1 {task.fields[top1]:.1%}  {task.fields[rate]:.0f} images/s"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not self.live,
        )
        self.task: TaskID | None = None
        self.loss = self.top1 = 0.0
        self.seen = 0

    def __enter__(self) -> TrainingDisplay:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        recipe = session.recipe
        self.batch_size = recipe.batch_size
        self.steps_per_epoch = steps_per_epoch
        self.epochs = recipe.epochs
        self.first = step
        self.after_first: float | None = None  # when the first step ended, which may have compiled something
        self.estimated = False
        self.began = self.said = time.monotonic()
        places = ", ".join(session.plan.placement)
        self.console.print(
            f"{recipe.model} in {recipe.columns} column{'s' if recipe.columns > 1 else ''} on {session.backend.name} "
            f"({places}); {data.name}: {len(data.train):,} training and {len(data.validation):,} validation images, "
            f"{len(data.class_names)} classes",
            highlight=False,
        )
        if step:
            self.console.print(f"resumed from step {step}", highlight=False)
        self.task = self.progress.add_task(
            "", total=steps_per_epoch, epoch="", loss=0.0, top1=0.0, rate=0.0, left="", completed=step % steps_per_epoch
        )

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        self.seen += 1
        self.estimate(step)
        weight = max(0.05, 1 / self.seen)  # a running mean
        self.loss += weight * (loss - self.loss)
        self.top1 += weight * (top1 - self.top1)
        now = time.monotonic()
        speed = (step - self.first) * self.batch_size / (now - self.began)
        left = (self.epochs * self.steps_per_epoch - step) * self.batch_size / speed
        epoch = (step - 1) // self.steps_per_epoch + 1
        inside = (step - 1) % self.steps_per_epoch + 1
        if self.task is not None:
            self.progress.update(
                self.task,
                completed=inside,
                epoch=f"{epoch}/{self.epochs}",
                loss=self.loss,
                top1=self.top1,
                rate=speed,
                left=f"run {duration(left)} at most",
            )
        if not self.live and now - self.said > QUIET_SECONDS:
            self.said = now
            self.console.print(
                f"epoch {epoch}/{self.epochs}  step {inside}/{self.steps_per_epoch}  loss {self.loss:.3f}  "
                f"top-1 {self.top1:.1%}  {speed:.0f} images/s  {duration(left)} left at most",
                highlight=False,
            )

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
            self.console.print(
                f"at {steps * self.batch_size / elapsed:,.1f} images/s, measured over {steps} "
                f"step{'s' if steps > 1 else ''}, the {total - step:,} steps of {self.epochs} epochs would take "
                f"{duration(left)} on this machine, validation not counted",
                highlight=False,
            )

    def validating(self, done: int, images: int) -> None:
        if self.task is not None:
            self.progress.update(self.task, left=f"validation {done}/{images}")

    def validated(self, record: Mapping[str, Any]) -> None:
        self.console.print(
            f"epoch {record['epoch']:>3}  training loss {self.loss:.3f}  validation loss {record['loss']:.3f}  "
            f"top-1 error {record['top1_error']:.2%}  top-5 error {record['top5_error']:.2%}  "
            f"{duration(record['seconds'])}",
            highlight=False,
        )
        self.said = time.monotonic()

    def note(self, message: str) -> None:
        self.console.print(message, highlight=False, markup=False)

    def warning(self, message: str) -> None:
        self.console.print(f"warning: {message}", style="yellow", highlight=False)


def duration(seconds: float) -> str:
    """Seconds in words: ``8 s``, ``1 min 20 s``, ``3 h 05 min``, ``4 days``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole / 86400:.1f} days"
