"""Training: the steps of an epoch as a generator, and around it the run folder, which survives any interruption."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minialex.backend.hearing import hearing
from minialex.backend.protocol import Backend
from minialex.data import DataSet, Split, batches, epoch_order
from minialex.data.dataset import statistics_of
from minialex.data.loader import Batch
from minialex.data.statistics import Statistics
from minialex.engine.columns import Placement
from minialex.engine.kept import Images, Kept
from minialex.engine.opening import labelled
from minialex.engine.schedule import FALLING, EpochRates, epoch_rates
from minialex.engine.session import Session, StepOutcome, mean_loss
from minialex.errors import CheckpointError, NumericalError, ResourceError
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.network import variants
from minialex.network.parameters import whole_shapes
from minialex.ranks.group import ALONE, Group
from minialex.ranks.watch import doing
from minialex.recipe.fields import Recipe
from minialex.runs import checkpoint
from minialex.runs.run_folder import BEGUN, DATA, Follower, Run, RunData, has_data, read_data, write_data
from minialex.runs.weights_file import recipe_of
from minialex.screen.formats import plural
from minialex.speed.energy import Meter
from minialex.speed.peaks import cores
from minialex.storage import atomic
from minialex.training import finetuning, resuming
from minialex.training.finetuning import Start
from minialex.training.guards import LossGuard, as_one, dead_units, dead_units_warning, first_not_finite
from minialex.training.listening import Listener, Unfailing
from minialex.training.signals import EXIT_CODES, StopRequest
from minialex.training.together import Pulse, check_alike, check_weights

RECORD_STEPS = 10  # steps that one training record averages
PROBE_IMAGES = 32  # images used to look for dead units
MOST_READERS = 16  # threads that read images beside a GPU, unless a recipe asks for more


ENERGY = "energy.json"  # in a run's folder: watt-hours by part of the machine, if it counts them


def energy_of(folder: Path) -> dict[str, float]:
    """The energy of a run up to its last checkpoint, in watt-hours by part of the machine; empty if unknown."""
    try:
        found = json.loads((folder / ENERGY).read_text(encoding="utf-8"))
        return {str(part): float(value) for part, value in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


class StepResult(NamedTuple):
    """A finished training step.

    Attributes:
        number: number of the run's steps so far, including this one
        images: uint8 [N,3,S,S], on the host or, if they are kept there, on the devices
        labels: int64 [N]
        outcome: loss, probabilities before the update, and what was not updated
        seconds: time since the previous step
        begun: the last step that has begun; the weights are those after it
    """

    number: int
    images: Images
    labels: NDArray[np.int64]
    outcome: StepOutcome
    seconds: float
    begun: int

    @property
    def right(self) -> int:
        """The number of images classified correctly, before the update."""
        return int(np.sum(self.outcome.probs.argmax(axis=1) == self.labels))

    @property
    def top1(self) -> float:
        """The fraction of images classified correctly, before the update."""
        return self.right / len(self.labels)

    @property
    def losses(self) -> tuple[float, ...]:
        """The mean loss of each shard."""
        return self.outcome.losses or (self.outcome.loss,)

    @property
    def finite(self) -> bool:
        """Whether the loss and all updates were finite numbers."""
        return not self.outcome.skipped and math.isfinite(self.outcome.loss)


def epoch_steps(
    session: Session,
    split: Split,
    step: int,
    now: EpochRates,
    group: Group = ALONE,
    ahead: Callable[[int], bool] = lambda step: False,
    kept: Kept | None = None,
) -> Generator[StepResult, None, None]:
    """Train from a step to the end of its epoch; the next batch is read and sent while the devices compute.

    Args:
        session: trained in place, with its recipe's order, batches and draws
        split: the training images
        step: the step of the whole run, counted from 0
        now: the rates in this epoch (see `minialex.engine.schedule.epoch_rates`)
        group: the session's group; each rank reads only its own share of every batch
        ahead: whether the step after a given one (counted from 1) may begin before that one's result is yielded, on
            backends that can do so: devices then need not wait for the host, but the weights are a step further. All
            ranks must answer alike
        kept: the images on the devices; None: they are read

    Yields:
        The result of each step.

    Raises:
        ResourceError: If the batch does not fit in memory.
        DataError: If an image is unreadable.
    """
    recipe = session.recipe
    per_epoch = len(split) // recipe.batch_size
    epoch, done = divmod(step, per_epoch)
    order = epoch_order(len(split), seed=recipe.seed, epoch=epoch + 1, shuffle=recipe.shuffle)
    share = recipe.batch_size // group.size
    order = order[: per_epoch * recipe.batch_size].reshape(per_epoch, group.size, share)[:, group.rank].reshape(-1)
    may = all(group.exchange(session.runs_ahead))  # else ranks would not sum the same steps
    began = time.perf_counter()
    coming: Generator[tuple[NDArray[np.int64], Images, NDArray[np.int64]], None, None]
    coming = read_ahead(session, split, order, share, done) if kept is None else kept.batches(order, share, done)
    with closing(coming) as source:
        batch = next(source, None)
        feed = None if batch is None else session.upload(batch[1], batch[2], step, now)
        pending = None if feed is None else session.start(feed)
        while batch is not None and pending is not None:
            del feed  # else three batches would be on the devices
            with doing("reading images"):
                following = next(source, None)
            step += 1
            feed = None if following is None else session.upload(following[1], following[2], step, now)
            early = session.start(feed) if feed is not None and may and ahead(step) else None
            outcome = session.finish(pending)
            seconds = time.perf_counter() - began
            began += seconds
            yield StepResult(step, batch[1], batch[2], outcome, seconds, step + (early is not None))
            batch, pending = following, early if early or feed is None else session.start(feed)


def read_ahead(
    session: Session, split: Split, order: NDArray[np.int64], batch_size: int, start: int = 0
) -> Generator[Batch, None, None]:
    """The batches of training images, read ahead to suit the session's devices; see `minialex.data.batches`."""
    return batches(split, order, batch_size, start=start, workers=readers(session), empty=session.host_bytes)


def readers(session: Session) -> int:
    """The number of threads that read images: if the network runs elsewhere, the processors are free."""
    asked = session.recipe.loader_threads
    return asked if session.host_bytes is None else max(asked, min(cores(), MOST_READERS))


@dataclass
class Progress:
    """A run's progress: a checkpoint's state, besides weights and momentum.

    Attributes:
        errors: the top-1 error of each validation
        validated: the last epoch that ended with one
    """

    step: int = 0
    errors: list[float] = field(default_factory=list)
    seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    validated: int = 0


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        progress: its progress
        stopped: ``""`` if training is complete, otherwise what stopped it: ``"SIGTERM"``, ``"Ctrl-C"``, …; a complete
            one may have been stopped before its report was written
        exit_code: 0, 75 or 130
        evaluation: the last weights' evaluation on the validation set; None if training was stopped
    """

    progress: Progress
    stopped: str
    exit_code: int
    evaluation: Evaluation | None


def train(
    recipe: Recipe,
    data: DataSet,
    backend: Backend,
    placement: Placement,
    run: Run | Follower,
    listener: Listener | None = None,
    *,
    resume: bool = False,
    start: Start | None = None,
    group: Group = ALONE,
) -> Result:
    """Train a network in a run folder, from the beginning or from its newest checkpoint.

    Args:
        recipe: the prepared recipe (see `minialex.engine.opening.prepare`)
        run: open and locked; new or, with `resume`, with checkpoints; on ranks other than the first, a `Follower`
        start: the result of `finetuning.begin` for a recipe with ``init_from``; None: computed here
        group: the ranks that train it together, which all call this; see `minialex.ranks.group`

    Raises:
        CheckpointError: If there is no intact checkpoint to resume from, or the run began with another network, other
            images or other numbers.
        NumericalError: If values are not finite; the last checkpoint stays.
        ResourceError: If memory or disk run out.
    """
    data = labelled(recipe, data)
    decides = resuming.deciding(recipe, data)
    check_alike(group, recipe, decides)
    begun = _shared(group, None if isinstance(run, Follower) else _begin(recipe, data, run, resume, start, decides))
    session = Session(
        recipe, backend, placement, begun.statistics, begun.weights or None, begun.momentum or None, group=group
    )
    training = Training(session, data, run, Unfailing(listener or Listener()), begun.progress, group)
    if begun.words:
        training.listener.note(begun.words)
        training.event(begun.words)
    for number, warning in enumerate(begun.warnings):
        training.warn(warning, tell=number >= begun.told)
    is_new = begun.is_new
    del begun, start  # the session has its own copies
    if is_new:
        training.save()
    return training.until_done()


@dataclass
class Begun:
    """The state with which training begins or continues.

    Attributes:
        progress: the run's progress
        warnings: warnings to be recorded
        told: how many of them were already reported
        words: what the network starts from, if not from random weights
        is_new: whether there is no checkpoint yet
        weights, momentum: the starting values; empty: the initial ones
        statistics: statistics of the training images
    """

    progress: Progress
    warnings: list[str]
    told: int
    words: str
    is_new: bool
    weights: Mapping[str, NDArray[Any]]
    momentum: Mapping[str, NDArray[Any]]
    statistics: Statistics


def _begin(
    recipe: Recipe, data: DataSet, run: Run, resume: bool, start: Start | None, decides: Mapping[str, str]
) -> Begun:
    """Check the contents of the run's folder, and write what belongs there before the first step."""
    warnings: list[str] = []
    saved = checkpoint.latest(run.paths.checkpoints, warnings.append) if resume else None
    for warning in warnings:
        checkpoint.to_standard_error(warning)
    if resume and saved is None:
        if run.had_checkpoints():
            raise CheckpointError(
                f"the checkpoints in {run.paths.checkpoints} are gone, though metrics and log say that there were "
                "some: restore them from a copy, or start over in another folder"
            )
        warnings.append("the run was stopped before its first checkpoint: it begins again at step 0")
        checkpoint.to_standard_error(warnings[-1])
    progress = Progress() if saved is None else restored(saved, recipe)
    told = len(warnings)
    if resume:
        if saved is not None and not has_data(run.paths.folder):  # written before the first checkpoint
            raise CheckpointError(
                f"{str(run.paths.folder / DATA)!r} is missing, so the images cannot be compared with those that the "
                "run began with: restore it from a copy, or begin a new run with these weights: minialex train --init "
                f"{run.paths.folder}"
            )
        warnings += compare(run, recipe, data, decides)
        if progress.step and not run.has_records():
            warnings.append(
                f"the metrics of the {plural(progress.step, 'step')} before are gone: the report begins here"
            )
        run.drop_metrics_after(progress.step, progress.validated)
    if start is None and recipe.init_from and saved is None:
        start = finetuning.begin(recipe, data.class_names)
    words = ""
    if start is not None:
        finetuning.remember(run.paths.folder, start)
    known = data_of_run(run, data, decides, start)
    begun = saved or start
    if start is not None:
        words = start.words()
        warnings += start.warnings()
    return Begun(
        progress, warnings, told, words, saved is None, {} if begun is None else begun.weights,
        {} if saved is None else saved.momentum, known.statistics,
    )  # fmt: skip


def _shared(group: Group, begun: Begun | None) -> Begun:
    """Rank 0's findings in the run's folder, for all ranks."""
    if group.size == 1 and begun is not None:
        return begun
    item: Any = None
    arrays: dict[str, NDArray[Any]] = {}
    if begun is not None:
        item = [asdict(begun.progress), begun.warnings, begun.told, begun.words, begun.is_new]
        arrays = {"mean": begun.statistics.mean, "covariance": begun.statistics.covariance}
        for kind, found in (("weights", begun.weights), ("momentum", begun.momentum)):
            arrays |= {f"{kind}/{name}": array for name, array in found.items()}
    (progress, warnings, told, words, is_new), arrays = group.broadcast(item, arrays)
    weights, momentum = (
        {name.partition("/")[2]: array for name, array in arrays.items() if name.startswith(f"{kind}/")}
        for kind in ("weights", "momentum")
    )
    statistics = Statistics(arrays["mean"], arrays["covariance"])
    return Begun(Progress(**progress), warnings, told, words, is_new, weights, momentum, statistics)


def restored(saved: checkpoint.Checkpoint, recipe: Recipe) -> Progress:
    """A run's progress at a checkpoint.

    Raises:
        CheckpointError: If it belongs to another network.
    """
    shapes = whole_shapes(variants.build(recipe), recipe.columns)
    checkpoint.check_against(saved.weights, shapes, f"weights of {saved.path}")
    checkpoint.check_against(saved.momentum, shapes, f"momentum of {saved.path}")
    step, errors, seconds, warnings = (saved.state[name] for name in ("step", "errors", "seconds", "warnings"))
    return Progress(step, errors, seconds, warnings, saved.state.get("validated", len(errors)))  # once, every epoch was


def compare(run: Run, recipe: Recipe, data: DataSet, decides: Mapping[str, str]) -> list[str]:
    """Compare a run with what it began with; only then replace its recipe with the one that it continues with.

    Returns:
        Warnings.

    Raises:
        CheckpointError: If something that determines its numbers differs; nothing is then written.
    """
    folder = run.paths.folder
    before = recipe_of(folder)
    resuming.compare_recipes(folder, before, recipe)
    warnings = []
    if has_data(folder):
        known = read_data(folder)
        warnings.append(resuming.compare(folder, known, recipe, data, decides))
        if not known.decides:
            write_data(folder, resuming.remembered(known, decides))
    if recipe.epochs != before.epochs and recipe.schedule in FALLING:
        warnings.append(
            f"the {recipe.schedule} schedule reaches over all epochs: from here on the rates are those of "
            f"{plural(recipe.epochs, 'epoch')}, not of {before.epochs}"
        )
    if recipe != before:
        run.write_recipe(recipe.to_toml())
    return [warning for warning in warnings if warning]


def data_of_run(run: Run, data: DataSet, decides: Mapping[str, str], start: Start | None = None) -> RunData:
    """The run's record of its data, computed and written the first time, with the mean image of its start.

    Args:
        decides: see `resuming.deciding`
    """
    folder = run.paths.folder
    if not has_data(folder):
        found = data.statistics or statistics_of(data.train)  # a store has them
        found = found if start is None or start.mean is None else replace(found, mean=start.mean)
        write_data(folder, RunData(data.name, data.class_names, found, data.words, decides))
    return read_data(folder)


class _StoppedBeforeAStep(Exception):
    """A stop was requested while the backend compiled: nothing of the step was computed."""


@dataclass
class Training:
    """A run in training: its epochs, and what is written and reported about them."""

    session: Session
    data: DataSet
    run: Run | Follower
    listener: Listener
    progress: Progress
    group: Group = ALONE

    def __post_init__(self) -> None:
        self.recipe = self.session.recipe
        self.stopped = ""  # the request to stop that all ranks agree on
        self.steps_per_epoch: int = len(self.data.train) // self.recipe.batch_size
        self.guard = LossGuard(self.recipe)
        before = energy_of(self.run.paths.folder)
        self.meter = Meter(self.session.backend, self.session.plan.placement, before)
        self.steps: list[tuple[float, float, float]] = []  # loss, top-1, seconds of steps not yet recorded
        self.begun_at = self.progress.step
        self.kept: Kept | None = None
        self.may_keep = self.group.size == 1  # of several, each reads other images in every epoch

    @property
    def epoch(self) -> int:
        """The epoch of the next step, counted from 1."""
        return self.progress.step // self.steps_per_epoch + 1

    def until_done(self) -> Result:
        """Train and validate, epoch by epoch, until done or until a stop is requested."""
        session, progress = self.session, self.progress
        signals = ["SIGUSR1"] if self.group.size > 1 else []  # SLURM's, for whole jobs

        def preparing(what: str, done: int, total: int, unit: str) -> None:
            if stop.requested and self.group.size == 1:  # several ranks stop together, after a step
                raise _StoppedBeforeAStep
            self.listener.preparing(what, done, total, unit)

        with StopRequest(*signals) as stop, hearing(preparing):
            self.listener.begin(session, self.data, self.steps_per_epoch, progress.step)
            where = ", ".join(session.plan.placement)
            self.run.log(f"{BEGUN} {progress.step} on {session.backend.name} ({where})")
            evaluation: Evaluation | None = None
            while not self.stops(stop):
                if self.validation_due():
                    with suppress(_StoppedBeforeAStep):
                        evaluation = self.validate(stop)
                    continue
                now = epoch_rates(self.recipe, self.epoch, progress.errors)
                if now.finished:
                    break
                try:
                    self.keep_images()
                    self.train_epoch(now, stop)
                except _StoppedBeforeAStep:
                    continue
            if self.stopped:
                self.record_steps()
                self.save()
                self.event(f"stopped by {self.stopped}")
                # only rank 0 exits with the code of a stop: launchers kill all others when they see one
                return Result(progress, self.stopped, 0 if self.group.rank else EXIT_CODES[self.stopped], None)
        return Result(progress, "", 0, evaluation or self.evaluate(lambda: False))  # resumed when everything was done

    def validation_due(self) -> bool:
        """Whether an epoch has just ended that must be validated before the next one begins."""
        recipe = self.recipe
        ended, begun = divmod(self.progress.step, self.steps_per_epoch)
        if begun or ended <= self.progress.validated:  # a run may be resumed within an epoch, to validate more often
            return False
        return ended % recipe.validation_epochs == 0 or ended >= recipe.epochs

    def stops(self, stop: StopRequest) -> bool:
        """Whether any rank was asked to stop; all ranks call this together, and get the same answer."""
        self.heard(self.group.exchange(stop.requested or ""))
        return bool(self.stopped)

    def heard(self, requests: Iterable[str]) -> None:
        """Take the ranks' requests to stop: the first one counts for all."""
        self.stopped = self.stopped or next(filter(None, requests), "")

    def keep_images(self) -> None:
        """Before the second epoch, when steps have their memory, leave the images on the devices if there is room.

        Not before an epoch that trains layers which are still frozen: its steps need more.
        """
        left = self.recipe.epochs - self.progress.step / self.steps_per_epoch
        if self.may_keep and self.progress.step > self.begun_at and left > 1 and not self.thaws():
            self.kept = self.session.keep(self.data.train, readers(self.session))
            self.may_keep = False
            if self.kept is not None:
                self.run.log("from here on the training images are on the devices")

    def thaws(self) -> bool:
        """Whether this or a later epoch trains layers that the epoch before did not."""
        before, *later = (
            epoch_rates(self.recipe, epoch, ()).frozen for epoch in range(self.epoch - 1, self.recipe.epochs + 1)
        )
        return not all(before <= frozen for frozen in later)

    def train_epoch(self, now: EpochRates, stop: StopRequest) -> None:
        """Run steps to the end of the epoch, or until a stop is requested."""
        progress, every = self.progress, self.recipe.checkpoint_steps

        def ahead(step: int) -> bool:
            return not self.stopped and not (every and step % every == 0)  # a checkpoint has the weights of its step

        steps = epoch_steps(self.session, self.data.train, progress.step, now, self.group, ahead, self.kept)
        with closing(steps) as results:
            for result in results:
                own = Pulse(result.losses, result.right, result.finite, stop.requested or "")
                pulses = [Pulse(*told) for told in self.group.exchange(own)]
                if not all(pulse.finite for pulse in pulses):
                    self.fail(result, now)
                self.heard(pulse.stop for pulse in pulses)
                loss = mean_loss([loss for pulse in pulses for loss in pulse.losses])
                top1 = sum(pulse.right for pulse in pulses) / (len(pulses) * len(result.labels))
                progress.step = result.number
                progress.seconds += result.seconds
                self.steps.append((loss, top1, result.seconds))
                self.listener.stepped(progress.step, loss, top1, now.learning_rate)
                warning = self.guard.see(loss)
                if warning:
                    self.warn(warning)
                ends = progress.step % self.steps_per_epoch == 0
                saves = every and progress.step % every == 0 and not (self.stopped or self.validation_due())
                if ends or saves or len(self.steps) == RECORD_STEPS:
                    self.record_steps(now)
                if saves:
                    self.save()
                if self.stopped and result.begun == result.number:
                    break

    def validate(self, stop: StopRequest) -> Evaluation | None:
        """Validate at the end of an epoch, and save a checkpoint; None, with neither, if a stop is requested."""
        found = self.evaluate(lambda: self.stops(stop))
        if self.stopped:
            return None
        progress = self.progress
        top1, top5 = found.error(1), found.error(5)
        best = top1 < min(progress.errors, default=math.inf)
        progress.errors.append(top1)
        epoch = progress.validated = self.epoch - 1
        record = {
            "kind": "validation", "epoch": epoch, "step": progress.step, "loss": found.loss, "top1_error": top1,
            "top5_error": top5, "seconds": progress.seconds,
        }  # fmt: skip
        self.run.append(record)
        self.run.log(f"epoch {epoch}: top-1 error {top1:.2%}, top-5 error {top5:.2%}, loss {found.loss:.4f}")
        if len(progress.errors) == 1:
            self.look_for_dead_units()
        self.save(best=best)
        self.listener.recorded(record)  # saved first: the listener may be gone
        return found

    def evaluate(self, stop: Callable[[], bool]) -> Evaluation:
        """Evaluate on the validation set, with the recipe's views."""
        self.session.collect()
        split, views = self.data.validation, self.recipe.views

        def progress(done: int) -> None:
            self.listener.validating(done, len(split))

        batch_size = 100
        while True:
            try:
                return evaluate(
                    [self.session], split, views=views, batch_size=batch_size, progress=progress, stop=stop,
                    group=self.group,
                )  # fmt: skip
            except ResourceError:  # memory that suffices for training may not suffice for this
                if batch_size == 1 or self.group.size > 1:  # the other ranks would continue with whole batches
                    raise
                batch_size //= 2

    def look_for_dead_units(self) -> None:
        """Warn about layers whose units are almost all dead."""
        self.session.collect()
        indices = np.arange(min(PROBE_IMAGES, len(self.data.train)))
        images, labels = self.data.train.read(indices), np.asarray(self.data.train.labels)[indices]
        now = epoch_rates(self.recipe, self.epoch, self.progress.errors)
        try:
            feed = self.session.training_feed(images, labels, self.progress.step, now, as_one(self.session))
            warning = dead_units_warning(dead_units(self.session, feed), self.recipe)
        except MemoryError:  # it needs memory besides the compiled steps': no reason to end training
            self.event("no memory to look for dead units")
            return
        if warning:
            self.warn(warning)

    def fail(self, result: StepResult, now: EpochRates) -> None:
        """Report where non-finite values first occurred, and end."""
        skipped = [str(name) for name in result.outcome.skipped]
        feed = self.session.training_feed(result.images, result.labels, result.number - 1, now)
        where = first_not_finite(self.session, feed)
        updated = f"; not updated: {', '.join(skipped[:4])}{' …' if len(skipped) > 4 else ''}" if skipped else ""
        message = (
            f"step {result.number}: values are not finite, first in {where}{updated}. The last good checkpoint is kept "
            f"in {self.run.paths.checkpoints}; try --learning-rate {now.learning_rate / 10:g}"
        )
        self.event(message)
        raise NumericalError(message)

    def save(self, *, best: bool = False) -> None:
        """Write a checkpoint of the current state, after its metrics and log."""
        self.session.collect()
        check_weights(self.group, self.session, self.progress.step)
        if isinstance(self.run, Follower):
            return
        self.run.sync()
        if taken := self.meter.read():
            atomic.write_json(self.run.paths.folder / ENERGY, taken)
        with doing("saving a checkpoint"):
            checkpoint.save(
                self.run.paths.checkpoints,
                self.progress.step,
                self.session.weights(),
                self.session.momentum(),
                {**asdict(self.progress), "seed": self.recipe.seed, "epoch": self.epoch},
                keep=self.recipe.keep_checkpoints,
                best=best,
            )

    def record_steps(self, now: EpochRates | None = None) -> None:
        """Write the steps since the last time as one training record."""
        if not self.steps:
            return
        self.meter.tick()
        step = self.progress.step
        loss, top1, seconds = (float(mean) for mean in np.asarray(self.steps).mean(axis=0))
        rate = {} if now is None else {"learning_rate": now.learning_rate}
        self.record(
            kind="train", step=step, epoch=step / self.steps_per_epoch, loss=loss, top1=top1,
            images_per_second=self.recipe.batch_size / seconds, **rate,
        )  # fmt: skip
        self.steps.clear()

    def record(self, **record: Any) -> None:
        """Append a record to the metrics, and report it."""
        self.run.append(record)
        self.listener.recorded(record)

    def event(self, message: str) -> None:
        """Record an event in the metrics and the log."""
        self.run.append({"kind": "event", "step": self.progress.step, "message": message})
        self.run.log(message)

    def warn(self, message: str, tell: bool = True) -> None:
        """Record a warning, and report it unless that has been done."""
        self.progress.warnings.append(message)
        self.event(message)
        if tell:
            self.listener.warning(message)
