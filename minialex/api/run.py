"""Training a network in a run folder, and its result."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from minialex.api.net import TrainedNet, load
from minialex.backend import registry
from minialex.data import DataSet, absolute, checked
from minialex.data.store.store import is_store
from minialex.engine.opening import load_data, placement_of_rank, prepare, threads_of_rank
from minialex.engine.session import placement_of
from minialex.engine.step import Plan
from minialex.errors import CheckpointError, ConfigurationError, MinialexError, NumericalError
from minialex.evaluation.errors import Evaluation
from minialex.figures.run import write_report
from minialex.network import own, variants
from minialex.network.network import Network
from minialex.network.own import Maker
from minialex.ranks import joining
from minialex.ranks.group import Group
from minialex.recipe import toml
from minialex.recipe.fields import Recipe
from minialex.recipe.fields import fields as recipe_fields
from minialex.runs import checkpoint
from minialex.runs.run_folder import Follower, Record, RunPaths, read_metrics, trained_epochs
from minialex.runs.run_folder import Run as RunFolder
from minialex.runs.weights_file import recipe_of
from minialex.screen.formats import plural
from minialex.screen.terminal import QUIET_SECONDS
from minialex.storage import atomic
from minialex.training import finetuning, resuming
from minialex.training.listening import Listener, Unfailing
from minialex.training.loop import Result
from minialex.training.loop import train as train_in_folder
from minialex.training.signals import StopRequest


class TrainingRun:
    """A run folder: what was trained and how it went. `train` returns one; `TrainingRun(path)` opens an existing one.

    Attributes:
        path: the folder
        result: how the training that returned it ended; None for a run that was only opened
    """

    def __init__(self, path: str | os.PathLike[str], data: DataSet | None = None, result: Result | None = None) -> None:
        self.path = Path(path)
        self.result = result
        self._data = data
        if result is None:
            recipe_of(self.path)  # raises at once if there is no run

    def __repr__(self) -> str:
        validations = [record for record in self.metrics if record["kind"] == "validation"]
        epochs = plural(trained_epochs(self.metrics), "epoch")
        last = f", validation top-1 error {validations[-1]['top1_error']:.2%}" if validations else ""
        return f"<run {self.path}: {epochs}{last}{', stopped by ' + self.stopped if self.stopped else ''}>"

    @property
    def stopped(self) -> str:
        """What stopped training or its report: ``"Ctrl-C"`` (or a notebook's interrupt), ``"SIGTERM"``; else ``""``."""
        return "" if self.result is None else self.result.stopped

    @property
    def recipe(self) -> Recipe:
        """All choices of the run."""
        return recipe_of(self.path)

    @property
    def metrics(self) -> list[Record]:
        """The run's records as dictionaries: ``kind`` is "train" (some steps), "validation" or "event"."""
        return read_metrics(RunPaths(self.path).metrics)

    @cached_property
    def net(self) -> TrainedNet:
        """The network with the best weights."""
        return load(self.path, backend=self.recipe.backend or None, devices=self.recipe.devices or None)

    def evaluate(self, *, views: int = 1, data: str | DataSet | None = None, batch_size: int = 100) -> Evaluation:
        """Errors of the best weights on a validation set, by default the run's own; see `TrainedNet.evaluate`."""
        return self.net.evaluate(views=views, data=data or self._data, batch_size=batch_size)

    def report(self) -> Path:
        """The run's report, a file for a browser; it is written now if the training was stopped early."""
        paths = RunPaths(self.path)
        if not paths.report.is_file():
            last = checkpoint.latest(paths.checkpoints, lambda message: None)
            if last is None:
                raise CheckpointError(f"no checkpoint in {self.path} to report on: resume the run first")
            data = self._data or load_data(self.recipe)
            found = load(last.path, backend=self.recipe.backend or None).evaluate(data=data, views=self.recipe.views)
            write_report(paths, self.recipe, data, found, last.state["warnings"])
        return paths.report

    def resume(
        self, *, threads: int | None = None, progress: bool | Listener = True, live: bool = False, **fields: Any
    ) -> TrainingRun:
        """Continue from the newest checkpoint, to the same bits as without a stop.

        Args:
            threads, progress, live: as for `train`
            fields: recipe fields to change, such as ``epochs=10``; `minialex.training.resuming.SAFE` lists them

        Raises:
            CheckpointError: If there is no sound checkpoint, or something that determines the numbers was changed.
        """
        before, path = self.recipe, self.path
        recipe = before.replace(**_with_init(fields))
        different = recipe.differences(before)
        if "init_from" in different or "init_layers" in different:
            raise ConfigurationError(f"{path} has already begun: leave out init, or train into another folder")
        recipe = recipe.replace(data=absolute(recipe.data))
        resuming.compare_recipes(path, before, recipe)  # at once, and again where it is written
        try:
            variants.build(recipe)
        except ConfigurationError as error:
            raise CheckpointError(f"{path}: its recipe makes no network: {error}") from None
        listener = _listener(progress, live)
        if "backend" in different:
            listener.warning(
                f"the run began on backend '{before.backend}'; '{recipe.backend}' rounds its numbers differently"
            )
        return _carry_out(recipe, path, self._data, threads, listener, resume=True)


def train(
    recipe: Recipe | str | os.PathLike[str] | Network | Maker | None = None,
    *,
    network: Network | Maker | str | None = None,
    data: str | os.PathLike[str] | DataSet | None = None,
    out: str | os.PathLike[str] | None = None,
    threads: int | None = None,
    progress: bool | Listener = True,
    live: bool = False,
    **fields: Any,
) -> TrainingRun:
    """Train a network in a new run folder, as ``minialex train`` does, to the same bits.

    If interrupted (Ctrl-C, or a notebook's interrupt), it finishes the step, saves and returns; `TrainingRun.resume`
    continues from there.

    Args:
        recipe: a recipe, the name of a built-in one, or a TOML file; None: the one that fits the data. Or your own
            network, as `network`.
        network: your own network instead of the recipe's: a `Network`, a function from the recipe's fields to one,
            or its name (``"mine.py:net"``; see `minialex.network.own`)
        data: ``"shapes"``, ``"cifar10"``, a folder of images, …, or a data set already loaded; None: the recipe's
        out: the run's folder; None: ``runs/NAME-DATE``
        threads: number of threads that the backend may use
        progress: show a progress bar, on the terminal or in the notebook; or your own listener
        live: in a notebook, draw the curves as they grow
        fields: any recipe fields, such as ``epochs=8``, ``learning_rate=0.02``, ``backend="numba"``; ``init`` also
            takes a run, checkpoint or weights file to start from

    Raises:
        ConfigurationError: If the arguments do not fit together; nothing is left behind.
        DataError: If images are missing or damaged.
        NumericalError: If values are not finite; the last checkpoint stays.
        ResourceError: If memory or disk run out.

    Examples:
        >>> run = minialex.train("shapes", epochs=1, train_images=128, validation_images=32, progress=False)
        >>> [record["epoch"] for record in run.metrics if record["kind"] == "validation"]
        [1]
        >>> run.evaluate(views=10).error(top=1) <= 1
        True
        >>> len(run.net.predict("photo.png"))
        5
        >>> print(run.report().name)
        report.html
    """
    if isinstance(recipe, list | tuple):
        raise ConfigurationError("expected a Network (minialex.network.network), not a list of layers")
    if isinstance(recipe, Network) or callable(recipe):
        if network is not None:
            raise ConfigurationError("two networks were given, as the first argument and as network: give only one")
        recipe, network = None, recipe
    if network is not None:
        fields = {**own.changes_for(network), **fields}
    if data is not None:
        fields["data"] = data.name if isinstance(data, DataSet) else os.fspath(data)
    chosen = choose_recipe(recipe, fields)
    # the run may be used from elsewhere
    chosen = chosen.replace(data=absolute(chosen.data), model=own.name_of(chosen.model))
    if chosen.init_from:
        chosen = chosen.replace(init_from=str(Path(chosen.init_from).expanduser().resolve()))
    path = new_folder(chosen) if out is None else Path(out)
    return _carry_out(chosen, path, data if isinstance(data, DataSet) else None, threads, _listener(progress, live))


def new_folder(recipe: Recipe | str | os.PathLike[str] | None, changes: Mapping[str, Any] | None = None) -> Path:
    """The default folder of a run that begins now, named after its data and the time."""
    data = absolute(choose_recipe(recipe, dict(changes or {})).data)
    label = Path(data.partition(":")[0]).name or "run"
    return Path("runs") / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"


def load_recipe(name: str | os.PathLike[str], **fields: Any) -> Recipe:
    """A built-in recipe by name, or one from a TOML file, with some fields changed.

    Raises:
        ConfigurationError: If there is no such recipe or field, or a value is not allowed.

    Examples:
        >>> minialex.load_recipe("alexnet-2012", dropout=0.4).learning_rate
        0.01
    """
    return toml.load(os.fspath(name)).replace(**fields)


def choose_recipe(recipe: Recipe | str | os.PathLike[str] | None, changes: dict[str, Any]) -> Recipe:
    """The recipe to use, with changes: the named one, or that of the network to start from, or of the data."""
    changes = _with_init(changes)
    if isinstance(recipe, Recipe):
        return recipe.replace(**changes)
    if recipe is not None:
        return load_recipe(recipe, **changes)
    if changes.get("init_from"):
        return finetuning.recipe_for(Path(changes["init_from"]).expanduser()).replace(**changes)
    data = changes.get("data", "shapes")
    if is_store(Path(data).expanduser()):
        return load_recipe("alexnet-2012", **{"classes": 0, **changes})  # as many as the store has
    name = data.partition(":")[0]
    return load_recipe(name if name in toml.built_in() else "small", **changes)


def _with_init(changes: dict[str, Any]) -> dict[str, Any]:
    """The changes with ``init`` split: a way to draw weights stays, a network to start from becomes ``init_from``."""
    init = changes.get("init", "gaussian")
    if init in recipe_fields()["init"][1].metadata["choices"]:
        return changes
    return {name: value for name, value in changes.items() if name != "init"} | {"init_from": os.fspath(init)}


def _listener(progress: bool | Listener, live: bool) -> Listener:
    """The listener that training reports to; of several ranks only the first has one."""
    if joining.join().rank:
        return Listener()
    if isinstance(progress, Listener) or not (progress or live):
        return progress or Listener()
    from minialex.api.notebook import NotebookDisplay, in_notebook
    from minialex.screen.terminal import console
    from minialex.training.display import TrainingDisplay

    return NotebookDisplay(live) if in_notebook() else TrainingDisplay(console())


def _checking(listener: Listener) -> Callable[[int, int], None]:
    """A callback that tells a listener now and then how many images have been checked."""
    said = time.monotonic()

    def progress(done: int, images: int) -> None:
        nonlocal said
        if time.monotonic() - said > QUIET_SECONDS:
            said = time.monotonic()
            listener.note(f"{done:,} of {plural(images, 'image')} checked")

    return progress


def _carry_out(
    recipe: Recipe, path: Path, given: DataSet | None, threads: int | None, listener: Listener, resume: bool = False
) -> TrainingRun:
    """Train in a folder and write the report: all ways to train end here."""
    group = joining.join()
    path = Path(group.exchange(os.fspath(path))[0])  # its name may have the time in it
    if group.size > 1 and not (recipe.shards or resume):
        recipe = recipe.replace(shards=group.size)
    name = recipe.backend or registry.default_name()
    backend = registry.load(name, threads=threads or threads_of_rank(group, name), precision=recipe.precision)
    placement = placement_of_rank(backend, placement_of(backend, recipe.devices or None, recipe.columns), group)
    recipe = recipe.replace(backend=name, devices=",".join(placement))
    network = variants.build(recipe.replace(classes=recipe.classes or 10))  # report misfits before any data is read
    Plan(network, placement, recipe).divided  # noqa: B018 - and what cannot be divided
    data = given or load_data(recipe.replace(skip_broken=False))  # the check follows, and reports its progress
    data = checked(data, skip_broken=recipe.skip_broken, tell=listener.warning, progress=_checking(listener))
    for note in data.notes:
        listener.note(note)
    recipe = prepare(recipe, data, group.size)
    # before there is a run, so that a network that does not fit leaves none behind
    start = finetuning.begin(recipe, data.class_names) if recipe.init_from and not resume else None
    listener = Unfailing(listener)
    group.exchange("ready")  # a rank that cannot begin ends all before there is a run
    with _folder(group, path, None if resume else recipe.to_toml()) as run:
        if data.left_out and not resume and group.rank == 0:
            atomic.write_bytes(run.paths.folder / "left-out.tsv", data.left_out_table())
        try:
            with listener:
                result = train_in_folder(
                    recipe, data, backend, placement, run, listener, resume=resume, start=start, group=group
                )
        except NumericalError:
            raise  # its log says where
        except MinialexError:
            if not resume:
                run.remove_if_empty()
            raise
        if result.evaluation is not None and group.rank == 0:
            result = _reported(run.paths, recipe, data, result, result.evaluation)
        if result.stopped and group.rank == 0:
            run.paths.report.unlink(missing_ok=True)  # of fewer epochs, from before the run was resumed
    return TrainingRun(path, None if given is None else data, result)  # without the images left out


def _reported(paths: RunPaths, recipe: Recipe, data: DataSet, result: Result, found: Evaluation) -> Result:
    """The result of a complete training after its report was written, or after a request to stop before that."""
    with StopRequest() as stop:
        if write_report(paths, recipe, data, found, result.progress.warnings, lambda: bool(stop.requested)):
            return result
        return replace(result, stopped=stop.requested or "", exit_code=stop.exit_code)


def _folder(group: Group, path: Path, recipe: str | None) -> RunFolder | Follower:
    """The run's folder, which only rank 0 writes to: a new one for a recipe (TOML text), or an existing one."""
    if group.rank:
        return Follower(path)
    return RunFolder.resume(path) if recipe is None else RunFolder.create(path, recipe)
