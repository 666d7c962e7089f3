"""What users see during a run: a bar on a terminal, plain lines elsewhere (notebooks have their own display)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from minialex.data import DataSet
from minialex.engine.session import Session
from minialex.screen.formats import duration, plural
from minialex.screen.terminal import Meter, say
from minialex.training.listening import Listener

LONG_SECONDS = 1800.0  # for a longer run, an estimate is shown after its first steps
MEASURED_SECONDS, MEASURED_STEPS = 5.0, 20  # the first steps end when either is reached


class TrainingDisplay(Listener):
    """Shows loss, error, images per second and time left; one line per epoch remains."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.meter = Meter(console, "steps")
        self.loss = self.error = 0.0
        self.seen = 0

    def __enter__(self) -> TrainingDisplay:
        self.meter.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.meter.progress.stop()

    def say(self, text: str, style: str | None = None) -> None:
        """Print a line that remains."""
        say(self.console, text, style)

    def tell(self, what: str, done: int, total: int | None, note: str = "", unit: str = "steps") -> None:
        """Show the progress of something."""
        self.meter.tell(what, done, total, note, unit)

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        recipe = session.recipe
        self.batch_size, self.steps_per_epoch, self.epochs = recipe.batch_size, steps_per_epoch, recipe.epochs
        self.classes = len(data.class_names)
        self.after_first: float | None = None  # when the first step, which may have compiled something, ended
        self.estimated = False
        columns, where = plural(recipe.columns, "column"), ", ".join(session.plan.placement)
        self.say(f"network  {recipe.model}, {columns}, on {session.backend.name} ({where})")
        self.say(
            f"data     {data.name}: {len(data.train):,} training and {len(data.validation):,} validation images, "
            f"{plural(self.classes, 'class')}"
        )
        if step:
            over = f", where training is over: epochs is {self.epochs}" if step >= self.epochs * steps_per_epoch else ""
            self.say(f"resumed from step {step:,}{over}")
        self.tell("the first step, for which kernels may be compiled", 0, None)

    def preparing(self, what: str, done: int, total: int, unit: str) -> None:
        self.tell(what, done, total, unit=unit)

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        self.seen += 1
        self.estimate(step)
        weight = max(0.05, 1 / self.seen)  # a running mean
        self.loss += weight * (loss - self.loss)
        self.error += weight * (1 - top1 - self.error)
        epoch, done = divmod(step - 1, self.steps_per_epoch)
        words = f"loss {self.loss:.3f}, error {self.error:.1%}"
        if self.seen > 1 and self.after_first is not None:
            pace = (time.monotonic() - self.after_first) / (self.seen - 1)  # seconds per step
            left = (self.epochs * self.steps_per_epoch - step) * pace
            words += f", {self.batch_size / pace:,.0f} images/s, {duration(left)} left"
        self.tell(f"epoch {epoch + 1}/{self.epochs}", done + 1, self.steps_per_epoch, words)

    def estimate(self, step: int) -> None:
        """Estimate once how long a long run will take, from its first steps except the very first."""
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
                f"at {steps * self.batch_size / elapsed:,.1f} images/s, measured over {plural(steps, 'step')}, the "
                f"{total - step:,} steps of {plural(self.epochs, 'epoch')} would take {duration(left)} on this "
                "machine, validation not counted"
            )

    def validating(self, done: int, images: int) -> None:
        self.tell("validation", done, images, unit="images")

    def recorded(self, record: Mapping[str, Any]) -> None:
        if record["kind"] == "validation":
            top5 = f" (top-5 {record['top5_error']:.2%})" if self.classes > 5 else ""
            self.say(
                f"epoch {record['epoch']:>2}  loss {self.loss:.3f} (validation {record['loss']:.3f})  "
                f"error {record['top1_error']:.2%}{top5}  {duration(record['seconds'])}"
            )

    def note(self, message: str) -> None:
        self.say(message)

    def warning(self, message: str) -> None:
        self.say(f"warning: {message}", "yellow")
