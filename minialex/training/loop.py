"""Training: epochs of steps, validation, the schedule, checkpoints, and a run folder that survives anything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.backend.protocol import Backend
from minialex.data import DataSet, batches, epoch_order
from minialex.data.dataset import statistics_of
from minialex.data.loader import Batch
from minialex.engine.columns import Placement
from minialex.engine.schedule import Moment, moment
from minialex.engine.session import Session
from minialex.errors import CheckpointError, ConfigurationError, NumericalError
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.network import variants
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.runs import checkpoint
from minialex.runs import run_data as rundata
from minialex.runs.run_data import RunData
from minialex.runs.run_folder import Run
from minialex.training import finetuning as transfer
from minialex.training.finetuning import Start
from minialex.training.guards import LossGuard, dead_units, dead_units_warning, first_not_finite
from minialex.training.signals import StopRequest

RECORD_STEPS = 10  # steps that one training record averages
PROBE_IMAGES = 32  # images that are looked at for dead units


class Listener:
    """What training tells while it goes on; every method may be overridden, none does anything here."""

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        """Training starts, or goes on, at `step`."""

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        """A step is done: its loss and the fraction of its batch that was right."""

    def validating(self, done: int, images: int) -> None:
        """So many validation images are done."""

    def validated(self, record: Mapping[str, Any]) -> None:
        """An epoch's validation record."""

    def note(self, message: str) -> None:
        """What the run begins with, where that is not random weights."""

    def warning(self, message: str) -> None:
        """A guard, or resuming, has something to say."""


@dataclass
class Progress:
    """How far a run is: the state of a checkpoint, besides weights and momentum."""

    step: int = 0
    errors: list[float] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)

    @property
    def best(self) -> float:
        """Lowest validation error so far, a fraction of 1."""
        return min(self.errors, default=math.inf)


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        stopped: ``""`` if training is complete, else ``"SIGTERM"`` or ``"Ctrl-C"``
        exit_code: 0, 75 or 130
        evaluation: of the last weights on the validation set; None if training was stopped
    """

    progress: Progress
    epochs: int
    stopped: str
    exit_code: int
    evaluation: Evaluation | None


def prepare(recipe: Recipe, data: DataSet) -> Recipe:
    """The recipe with what only the data knows: the number of classes.

    Raises:
        ConfigurationError: If the data has more classes than the recipe, too few images for a batch, or images of
            another size.
    """
    classes = len(data.class_names)
    if recipe.classes == 0:
        recipe = recipe.replace(classes=classes)
    if recipe.classes < classes:
        raise ConfigurationError(
            f"'{data.name}' has {classes} classes, the recipe {recipe.classes}: set --classes {classes}"
        )
    if len(data.train) < recipe.batch_size:
        raise ConfigurationError(
            f"a batch of {recipe.batch_size} images is larger than the training set, {len(data.train)}: "
            f"set --batch-size {max(1, len(data.train) // 4)}"
        )
    if data.train.size != recipe.image_size:
        raise ConfigurationError(
            f"'{data.name}' has images of {data.train.size} rows, the recipe says {recipe.image_size}: "
            f"set --image-size {data.train.size} (and --crop)"
        )
    return recipe


def data_of_run(run: Run, data: DataSet, mean: NDArray[np.float32] | None = None) -> RunData:
    """What the run remembers of its data, computed and written the first time; with another mean image if given."""
    folder = run.paths.folder
    if not rundata.is_there(folder):
        found = data.statistics or statistics_of(data.train)  # a store knows them
        found = found if mean is None else replace(found, mean=mean)
        rundata.write(folder, RunData(data.name, data.class_names, found, data.words))
    return rundata.read(folder)


def train(
    recipe: Recipe,
    data: DataSet,
    backend: Backend,
    placement: Placement,
    run: Run,
    listener: Listener | None = None,
    *,
    resume: bool = False,
    start: Start | None = None,
) -> Result:
    """Train a network in a run folder, from the beginning or from its newest checkpoint.

    Args:
        recipe: prepared (see `prepare`)
        run: open and locked; new, or with `resume` one that holds checkpoints
        start: what `transfer.begin` made of a recipe with ``init_from``; None: it is made here

    Raises:
        CheckpointError: If there is nothing sound to resume from, or it is of another network.
        NumericalError: If values are not finite; the last checkpoint before stays.
        ResourceError: If memory or disk run out.
    """
    return _Training(recipe, data, backend, placement, run, listener or Listener(), resume, start).run_until_done()


class Upcoming:
    """A batch, and after `advance` the next one: it is read while the step before computes."""

    def __init__(self, source: Iterator[Batch]) -> None:
        self._source = source
        self.batch: tuple[NDArray[np.uint8], NDArray[np.int64]] | None = None
        self.advance()

    def advance(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]] | None:
        """The next batch's images and labels, or None."""
        found = next(self._source, None)
        self.batch = None if found is None else found[1:]
        return self.batch


class _Training:
    """The state of `train`, so that its parts can be read one by one."""

    def __init__(
        self,
        recipe: Recipe,
        data: DataSet,
        backend: Backend,
        placement: Placement,
        run: Run,
        listener: Listener,
        resume: bool,
        start: Start | None,
    ) -> None:
        self.recipe, self.data, self.run, self.listener = recipe, data, run, listener
        self.progress = Progress()
        self.guard = LossGuard(recipe)
        self.steps_per_epoch = len(data.train) // recipe.batch_size
        self.labels = np.asarray(data.train.labels)
        self.pending: list[tuple[float, float, float]] = []  # loss, top-1, seconds of steps not yet recorded
        self.evaluation: Evaluation | None = None
        weights: Mapping[str, NDArray[Any]] | None = None
        momentum: Mapping[str, NDArray[Any]] | None = None
        found = checkpoint.latest(run.paths.checkpoints, self.warn) if resume else None
        if found is not None:
            shapes = whole_shapes(variants.build(recipe), recipe.columns)
            checkpoint.check_against(found.weights, shapes, f"weights of {found.path}")
            checkpoint.check_against(found.momentum, shapes, f"momentum of {found.path}")
            weights, momentum = found.weights, found.momentum
            known = {name: found.state[name] for name in ("step", "errors", "seconds", "warnings")}
            self.progress = Progress(**known)
        elif resume:
            self.warn("the run was stopped before its first checkpoint: it begins again at step 0")
        if resume:
            run.drop_metrics_after(self.progress.step)
        if start is None and recipe.init_from and found is None:
            start = transfer.begin(recipe, data.class_names)
        if start is not None:
            transfer.remember(run.paths.folder, start)
            weights = start.weights
        known_data = data_of_run(run, data, None if start is None else start.mean)
        if known_data.class_names != data.class_names:
            raise CheckpointError(f"{run.paths.folder} was trained on other classes than '{data.name}' has")
        self.session = Session(recipe, backend, placement, known_data.statistics, weights, momentum)
        del weights, momentum
        if start is not None:
            self.listener.note(start.words())
            self.record_event(start.words())
            for warning in start.warnings():
                self.warn(warning)
            del start
        if found is None:
            self.save(best=False)

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 1."""
        return int(self.progress.step // self.steps_per_epoch + 1)

    def run_until_done(self) -> Result:
        self.listener.begin(self.session, self.data, self.steps_per_epoch, self.progress.step)
        where = ", ".join(self.session.plan.placement)
        self.run.log(f"training begins at step {self.progress.step} on {self.session.backend.name} ({where})")
        with StopRequest() as stop:
            while not stop.requested:
                if len(self.progress.errors) < self.epoch - 1:
                    self.validate(stop)
                    continue
                now = moment(self.recipe, self.epoch, self.progress.errors)
                if now.finished:
                    break
                self.train_epoch(now, stop)
            if stop.requested:
                self.flush()
                self.save(best=False)
                self.record_event(f"stopped by {stop.requested}")
                return Result(self.progress, self.epoch, stop.requested, stop.exit_code, None)
        if self.evaluation is None:  # resumed when all was done
            self.evaluation = self.evaluate(lambda: False)
        return Result(self.progress, self.epoch - 1, "", 0, self.evaluation)

    def train_epoch(self, now: Moment, stop: StopRequest) -> None:
        """Steps to the end of the epoch, or until a stop is requested."""
        recipe, progress = self.recipe, self.progress
        order = epoch_order(len(self.data.train), seed=recipe.seed, epoch=self.epoch, shuffle=recipe.shuffle)
        order = order[: self.steps_per_epoch * recipe.batch_size]
        done = progress.step % self.steps_per_epoch
        began = time.perf_counter()
        with closing(
            batches(self.data.train, order, recipe.batch_size, start=done, workers=recipe.loader_threads)
        ) as source:
            upcoming, feed = Upcoming(source), None
            while upcoming.batch is not None:
                images, labels = upcoming.batch
                if feed is None:
                    feed = self.session.upload(images, labels, progress.step, now)
                pending = self.session.start(feed)
                ahead = upcoming.advance()
                feed = None if ahead is None else self.session.upload(*ahead, progress.step + 1, now)
                outcome = self.session.finish(pending)
                if outcome.skipped or not math.isfinite(outcome.loss):
                    self.fail(images, labels, now, tuple(map(str, outcome.skipped)))
                progress.step += 1
                seconds = time.perf_counter() - began
                began += seconds
                progress.seconds += seconds
                top1 = float(np.mean(outcome.probs.argmax(axis=1) == labels))
                self.pending.append((outcome.loss, top1, seconds))
                self.listener.stepped(progress.step, outcome.loss, top1, now.learning_rate)
                warning = self.guard.see(outcome.loss)
                if warning:
                    self.warn(warning)
                ends = progress.step % self.steps_per_epoch == 0
                if ends or len(self.pending) == RECORD_STEPS:
                    self.flush(now)
                if stop.requested or ends:
                    break
                if recipe.checkpoint_steps and progress.step % recipe.checkpoint_steps == 0:
                    self.flush(now)
                    self.save(best=False)

    def validate(self, stop: StopRequest) -> None:
        """Validation at the end of an epoch, and its checkpoint; given up if a stop is requested."""
        found = self.evaluate(lambda: bool(stop.requested))
        if stop.requested:
            return
        self.evaluation = found
        errors = self.progress.errors
        top1, top5 = found.error(1), found.error(5)
        record = {
            "kind": "validation",
            "epoch": len(errors) + 1,
            "step": self.progress.step,
            "loss": found.loss,
            "top1_error": top1,
            "top5_error": top5,
            "seconds": self.progress.seconds,
        }
        best = top1 < self.progress.best
        errors.append(top1)
        self.run.append(record)
        self.run.log(f"epoch {record['epoch']}: top-1 error {top1:.2%}, top-5 error {top5:.2%}, loss {found.loss:.4f}")
        self.listener.validated(record)
        if len(errors) == 1:
            self.look_for_dead_units()
        self.save(best=best)

    def evaluate(self, stop: Callable[[], bool]) -> Evaluation:
        """The validation set, with the recipe's views."""
        images = len(self.data.validation)
        return evaluate(
            [self.session],
            self.data.validation,
            views=self.recipe.views,
            progress=lambda done: self.listener.validating(done, images),
            stop=stop,
        )

    def look_for_dead_units(self) -> None:
        """Warn of layers that nothing passes any more."""
        n = min(PROBE_IMAGES, len(self.data.train))
        indices = np.arange(n)
        now = moment(self.recipe, self.epoch, self.progress.errors)
        images = self.data.train.read(indices)
        try:
            feed = self.session.training_feed(images, self.labels[indices], self.progress.step, now)
            warning = dead_units_warning(dead_units(self.session, feed), self.recipe)
        except MemoryError:  # it walks the layers beside the compiled steps' memory: no reason to end a training
            self.record_event("no memory to look for dead units")
            return
        if warning:
            self.warn(warning)

    def fail(self, images: NDArray[np.uint8], labels: NDArray[np.int64], now: Moment, kept: tuple[str, ...]) -> None:
        """Say where values first were not finite, and end."""
        step = self.progress.step
        feed = self.session.training_feed(images, labels, step, now)
        where = first_not_finite(self.session, feed)
        updated = f"; not updated: {', '.join(kept[:4])}{' …' if len(kept) > 4 else ''}" if kept else ""
        message = (
            f"step {step + 1}: values are not finite, first in {where}{updated}. The last good checkpoint is kept in "
            f"{self.run.paths.checkpoints}; try --learning-rate {now.learning_rate / 10:g}"
        )
        self.record_event(message)
        raise NumericalError(message)

    def save(self, *, best: bool) -> Path:
        """A checkpoint of this moment."""
        progress = self.progress
        self.run.sync()
        state = {
            "step": progress.step,
            "errors": progress.errors,
            "seconds": progress.seconds,
            "warnings": progress.warnings,
            "seed": self.recipe.seed,
            "epoch": self.epoch,
        }
        return checkpoint.save(
            self.run.paths.checkpoints,
            progress.step,
            self.session.weights(),
            self.session.momentum(),
            state,
            keep=self.recipe.keep_checkpoints,
            best=best,
        )

    def flush(self, now: Moment | None = None) -> None:
        """Write the pending steps as one training record."""
        if not self.pending:
            return
        loss, top1, seconds = np.asarray(self.pending).mean(axis=0)
        record = {
            "kind": "train",
            "step": self.progress.step,
            "epoch": self.progress.step / self.steps_per_epoch,
            "loss": float(loss),
            "top1": float(top1),
            "images_per_second": self.recipe.batch_size / float(seconds),
        }
        if now is not None:
            record["learning_rate"] = now.learning_rate
        self.run.append(record)
        self.pending.clear()

    def warn(self, message: str) -> None:
        """Tell the listener and remember."""
        self.progress.warnings.append(message)
        self.listener.warning(message)
        self.record_event(message)

    def record_event(self, message: str) -> None:
        """Something that happened, in the metrics and the log."""
        self.run.append({"kind": "event", "step": self.progress.step, "message": message})
        self.run.log(message)
