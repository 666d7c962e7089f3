"""Training: the steps of an epoch as a generator, and around it the run folder, which survives anything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.backend.protocol import Backend
from minialex.data import DataSet, Split, batches, epoch_order
from minialex.data.dataset import statistics_of
from minialex.engine.columns import Placement
from minialex.engine.schedule import Moment, moment
from minialex.engine.session import Outcome, Session
from minialex.errors import CheckpointError, NumericalError
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.network import models
from minialex.network.parameters import whole_shapes
from minialex.recipe.fields import Recipe
from minialex.runs import checkpoint, run_data
from minialex.runs.checkpoint import Checkpoint
from minialex.runs.run_data import RunData
from minialex.runs.run_folder import Run
from minialex.training import finetuning
from minialex.training.finetuning import Start
from minialex.training.guards import LossGuard, dead_units, dead_units_warning, first_not_finite
from minialex.training.signals import StopRequest

RECORD_STEPS = 10  # steps that one training record averages
PROBE_IMAGES = 32  # images that are looked at for dead units


class StepResult(NamedTuple):
    """A training step that is done.

    Attributes:
        number: the run's steps until now, this one counted
        images: uint8 [N,3,S,S]
        labels: int64 [N]
        outcome: loss, probabilities before the update, and what was not updated
        seconds: since the step before
    """

    number: int
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    outcome: Outcome
    seconds: float

    @property
    def top1(self) -> float:
        """Fraction of the batch that was right, before the update."""
        return float(np.mean(self.outcome.probs.argmax(axis=1) == self.labels))

    @property
    def finite(self) -> bool:
        """Whether the loss and all updates were finite numbers."""
        return not self.outcome.skipped and math.isfinite(self.outcome.loss)


def epoch_steps(session: Session, split: Split, step: int, now: Moment) -> Generator[StepResult, None, None]:
    """Train from a step to the end of its epoch; the next batch is read and sent while the devices compute.

    Args:
        session: is trained in place, by its recipe's order, batches and draws
        split: the training images
        step: of the whole run, counted from 0
        now: what holds in this epoch (see `minialex.engine.schedule.moment`)

    Yields:
        What each step did.

    Raises:
        ResourceError: If the batch does not fit into memory.
        DataError: If an image cannot be read.
    """
    recipe = session.recipe
    per_epoch = len(split) // recipe.batch_size
    epoch, done = divmod(step, per_epoch)
    order = epoch_order(len(split), seed=recipe.seed, epoch=epoch + 1, shuffle=recipe.shuffle)
    order = order[: per_epoch * recipe.batch_size]
    began = time.perf_counter()
    with closing(batches(split, order, recipe.batch_size, start=done, workers=recipe.loader_threads)) as source:
        batch = next(source, None)
        feed = None if batch is None else session.upload(*batch[1:], step, now)
        while batch is not None and feed is not None:
            pending = session.start(feed)
            del feed  # or three batches would lie on the devices
            following = next(source, None)
            feed = None if following is None else session.upload(*following[1:], step + 1, now)
            outcome = session.finish(pending)
            step += 1
            seconds = time.perf_counter() - began
            began += seconds
            yield StepResult(step, *batch[1:], outcome, seconds)
            batch = following


class Listener:
    """What training tells while it goes on; every method may be overridden, none does anything here."""

    def begin(self, session: Session, data: DataSet, steps_per_epoch: int, step: int) -> None:
        """Training starts, or goes on, at `step`."""

    def stepped(self, step: int, loss: float, top1: float, rate: float) -> None:
        """A step is done: its loss and the fraction of its batch that was right."""

    def validating(self, done: int, images: int) -> None:
        """So many validation images are done."""

    def recorded(self, record: Mapping[str, Any]) -> None:
        """A record of the metrics, of some steps or of an epoch's validation."""

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


@dataclass
class Journal:
    """How far a run is, and where it says so: its metrics, its log, and the listener."""

    run: Run
    listener: Listener
    progress: Progress = field(default_factory=Progress)

    def record(self, record: Mapping[str, Any]) -> None:
        """A record of the metrics."""
        self.run.append(record)
        self.listener.recorded(record)

    def event(self, message: str) -> None:
        """Something that happened, in the metrics and the log."""
        self.run.append({"kind": "event", "step": self.progress.step, "message": message})
        self.run.log(message)

    def warn(self, message: str) -> None:
        """Tell the listener and remember."""
        self.progress.warnings.append(message)
        self.listener.warning(message)
        self.event(message)


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
        recipe: prepared (see `minialex.engine.opening.prepare`)
        run: open and locked; new, or with `resume` one that holds checkpoints
        start: what `finetuning.begin` made of a recipe with ``init_from``; None: it is made here

    Raises:
        CheckpointError: If there is nothing sound to resume from, or it is of another network.
        NumericalError: If values are not finite; the last checkpoint before stays.
        ResourceError: If memory or disk run out.
    """
    journal = Journal(run, listener or Listener())
    session = _settled(recipe, data, backend, placement, journal, resume, start)
    del start
    training = Training(session, data, journal)
    progress = journal.progress
    journal.listener.begin(session, data, training.steps_per_epoch, progress.step)
    where = ", ".join(session.plan.placement)
    run.log(f"training begins at step {progress.step} on {session.backend.name} ({where})")
    evaluation: Evaluation | None = None
    with StopRequest() as stop:
        while not stop.requested:
            if len(progress.errors) < training.epoch - 1:
                evaluation = training.validate(stop)
                continue
            now = moment(recipe, training.epoch, progress.errors)
            if now.finished:
                break
            training.train_epoch(now, stop)
        if stop.requested:
            training.record_steps()
            save(session, journal, training.epoch)
            journal.event(f"stopped by {stop.requested}")
            return Result(progress, training.epoch, stop.requested, stop.exit_code, None)
    if evaluation is None:  # resumed when all was done
        evaluation = training.evaluate(lambda: False)
    return Result(progress, training.epoch - 1, "", 0, evaluation)


def _settled(
    recipe: Recipe,
    data: DataSet,
    backend: Backend,
    placement: Placement,
    journal: Journal,
    resume: bool,
    start: Start | None,
) -> Session:
    """A session with the weights that training begins or goes on with, and the run folder as it is to be then."""
    run = journal.run
    saved = restore(recipe, journal) if resume else None
    if start is None and recipe.init_from and saved is None:
        start = finetuning.begin(recipe, data.class_names)
    if start is not None:
        finetuning.remember(run.paths.folder, start)
    known = data_of_run(run, data, None if start is None else start.mean)
    if known.class_names != data.class_names:
        raise CheckpointError(f"{run.paths.folder} was trained on other classes than '{data.name}' has")
    begun = saved or start
    weights, momentum = None if begun is None else begun.weights, None if saved is None else saved.momentum
    session = Session(recipe, backend, placement, known.statistics, weights, momentum)
    if start is not None:
        journal.listener.note(start.words())
        journal.event(start.words())
        for warning in start.warnings():
            journal.warn(warning)
    if saved is None:
        save(session, journal, 1)
    return session


def restore(recipe: Recipe, journal: Journal) -> Checkpoint | None:
    """A run's newest sound checkpoint, with its progress in the journal and no later metrics; None if there is none.

    Raises:
        CheckpointError: If it is of another network.
    """
    run = journal.run
    found = checkpoint.latest(run.paths.checkpoints, journal.warn)
    if found is None:
        journal.warn("the run was stopped before its first checkpoint: it begins again at step 0")
    else:
        shapes = whole_shapes(models.build(recipe.network), recipe.columns)
        checkpoint.check_against(found.weights, shapes, f"weights of {found.path}")
        checkpoint.check_against(found.momentum, shapes, f"momentum of {found.path}")
        journal.progress = Progress(**{name: found.state[name] for name in ("step", "errors", "seconds", "warnings")})
    run.drop_metrics_after(journal.progress.step)
    return found


def data_of_run(run: Run, data: DataSet, mean: NDArray[np.float32] | None = None) -> RunData:
    """What the run remembers of its data, computed and written the first time; with another mean image if given."""
    folder = run.paths.folder
    if not run_data.is_there(folder):
        found = data.statistics or statistics_of(data.train)  # a store knows them
        found = found if mean is None else replace(found, mean=mean)
        run_data.write(folder, RunData(data.name, data.class_names, found, data.words))
    return run_data.read(folder)


def save(session: Session, journal: Journal, epoch: int, *, best: bool = False) -> None:
    """Write a checkpoint of this moment, after the metrics and the log that belong to it."""
    journal.run.sync()
    checkpoint.save(
        journal.run.paths.checkpoints,
        journal.progress.step,
        session.weights(),
        session.momentum(),
        {**asdict(journal.progress), "seed": session.recipe.seed, "epoch": epoch},
        keep=session.recipe.keep_checkpoints,
        best=best,
    )


class Training:
    """A run that is being trained: its epochs, and what is recorded of them.

    Attributes:
        session, data, journal: what is trained, on what, and how far it is
        steps_per_epoch: whole batches of the training set
    """

    def __init__(self, session: Session, data: DataSet, journal: Journal) -> None:
        self.session, self.data, self.journal = session, data, journal
        self.steps_per_epoch: int = len(data.train) // session.recipe.batch_size
        self._guard = LossGuard(session.recipe)
        self._steps: list[tuple[float, float, float]] = []  # loss, top-1, seconds of steps not yet recorded

    @property
    def epoch(self) -> int:
        """The epoch of the next step, from 1."""
        return self.journal.progress.step // self.steps_per_epoch + 1

    def train_epoch(self, now: Moment, stop: StopRequest) -> None:
        """Steps to the end of the epoch, or until a stop is requested."""
        journal, progress, every = self.journal, self.journal.progress, self.session.recipe.checkpoint_steps
        with closing(epoch_steps(self.session, self.data.train, progress.step, now)) as results:
            for result in results:
                if not result.finite:
                    self.fail(result, now)
                progress.step = result.number
                progress.seconds += result.seconds
                self._steps.append((result.outcome.loss, result.top1, result.seconds))
                journal.listener.stepped(progress.step, result.outcome.loss, result.top1, now.learning_rate)
                warning = self._guard.see(result.outcome.loss)
                if warning:
                    journal.warn(warning)
                ends = progress.step % self.steps_per_epoch == 0
                saves = every and progress.step % every == 0 and not (ends or stop.requested)
                if ends or saves or len(self._steps) == RECORD_STEPS:
                    self.record_steps(now)
                if saves:
                    save(self.session, journal, self.epoch)
                if stop.requested:
                    break

    def record_steps(self, now: Moment | None = None) -> None:
        """Write the steps since the last time as one training record."""
        if not self._steps:
            return
        loss, top1, seconds = np.asarray(self._steps).mean(axis=0)
        record = {
            "kind": "train",
            "step": self.journal.progress.step,
            "epoch": self.journal.progress.step / self.steps_per_epoch,
            "loss": float(loss),
            "top1": float(top1),
            "images_per_second": self.session.recipe.batch_size / float(seconds),
        }
        if now is not None:
            record["learning_rate"] = now.learning_rate
        self.journal.record(record)
        self._steps.clear()

    def validate(self, stop: StopRequest) -> Evaluation | None:
        """Validation at the end of an epoch, and its checkpoint; None, and neither, if a stop is requested."""
        found = self.evaluate(lambda: bool(stop.requested))
        if stop.requested:
            return None
        progress = self.journal.progress
        top1, top5 = found.error(1), found.error(5)
        best = top1 < min(progress.errors, default=math.inf)
        progress.errors.append(top1)
        epoch = len(progress.errors)
        self.journal.record(
            {
                "kind": "validation",
                "epoch": epoch,
                "step": progress.step,
                "loss": found.loss,
                "top1_error": top1,
                "top5_error": top5,
                "seconds": progress.seconds,
            }
        )
        self.journal.run.log(f"epoch {epoch}: top-1 error {top1:.2%}, top-5 error {top5:.2%}, loss {found.loss:.4f}")
        if epoch == 1:
            self.look_for_dead_units()
        save(self.session, self.journal, self.epoch, best=best)
        return found

    def evaluate(self, stop: Callable[[], bool]) -> Evaluation:
        """The validation set, with the recipe's views."""
        images, listener = len(self.data.validation), self.journal.listener
        return evaluate(
            [self.session],
            self.data.validation,
            views=self.session.recipe.views,
            progress=lambda done: listener.validating(done, images),
            stop=stop,
        )

    def look_for_dead_units(self) -> None:
        """Warn of layers that nothing passes any more."""
        indices = np.arange(min(PROBE_IMAGES, len(self.data.train)))
        progress, recipe = self.journal.progress, self.session.recipe
        images, labels = self.data.train.read(indices), np.asarray(self.data.train.labels)[indices]
        try:
            now = moment(recipe, self.epoch, progress.errors)
            feed = self.session.training_feed(images, labels, progress.step, now)
            warning = dead_units_warning(dead_units(self.session, feed), recipe)
        except MemoryError:  # it walks the layers beside the compiled steps' memory: no reason to end a training
            self.journal.event("no memory to look for dead units")
            return
        if warning:
            self.journal.warn(warning)

    def fail(self, result: StepResult, now: Moment) -> None:
        """Say where values first were not finite, and end."""
        skipped = result.outcome.skipped
        feed = self.session.training_feed(result.images, result.labels, result.number - 1, now)
        where = first_not_finite(self.session, feed)
        updated = f"; not updated: {', '.join(skipped[:4])}{' …' if len(skipped) > 4 else ''}" if skipped else ""
        message = (
            f"step {result.number}: values are not finite, first in {where}{updated}. The last good checkpoint is kept "
            f"in {self.journal.run.paths.checkpoints}; try --learning-rate {now.learning_rate / 10:g}"
        )
        self.journal.event(message)
        raise NumericalError(message)
