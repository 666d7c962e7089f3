"""The command ``minialex evaluate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from minialex.backend import registry
from minialex.cli.commands import console, load_data, precision_of, session_of
from minialex.data import DataSet, Split
from minialex.errors import ConfigurationError
from minialex.evaluation import calibration as scores
from minialex.evaluation.errors import Evaluation
from minialex.evaluation.errors import evaluate as run_evaluation
from minialex.runs import weights_file as weights
from minialex.runs.weights_file import Weights


def evaluate(
    paths: Sequence[Path],
    views: int,
    data_name: str | None,
    backend_name: str | None,
    devices: str | None,
    threads: int | None,
    precision: str | None,
    batch_size: int,
    per_class: bool,
    reliability: Path | None,
    as_json: bool,
) -> int:
    """Evaluate networks, alone or averaged, and tell on standard output; returns the exit code."""
    if views not in (1, 10):
        raise ConfigurationError(f"--views takes 1 or 10, got {views}")
    networks = [weights.find(path) for path in paths]
    asked = [precision_of(network.recipe, precision) for network in networks]
    backends = {p: registry.load(backend_name, threads=threads, precision=p) for p in dict.fromkeys(asked)}
    first = networks[0]
    for path, network in zip(paths, networks, strict=True):
        if network.labels != first.labels:
            raise ConfigurationError(
                f"{path} knows other classes than {paths[0]}: runs that are averaged must share them"
            )
        if network.recipe.image_size != first.recipe.image_size:
            sizes = sorted({n.recipe.image_size for n in networks})
            raise ConfigurationError(f"runs that are averaged must share image_size, got {sizes}")
    data = load_data(first.recipe if data_name is None else first.recipe.replace(data=data_name))
    names, numbers = shared_classes(first, data, paths[0])
    titles = first.words or names
    sessions = [session_of(network, backends[p], devices) for network, p in zip(networks, asked, strict=True)]
    split = Renumbered(data.validation, numbers)
    screen = console()
    with Progress(
        console=Console(stderr=True) if as_json else screen,
        transient=True,
        disable=as_json or not screen.is_terminal,
    ) as progress:
        task = progress.add_task("evaluating", total=len(split))
        found = run_evaluation(
            sessions,
            split,
            views=views,
            batch_size=batch_size,
            progress=lambda done: progress.update(task, completed=done),
        )
    if reliability is not None:
        from minialex.figures import pictures

        pictures.save(pictures.reliability(scores.calibration(found)), reliability)
    if as_json:
        about = {"networks": [str(path) for path in paths], "data": data.name, "views": views}
        print(json.dumps({**about, **scores.as_json(found, names, titles)}, indent=1))
        return 0
    screen.print(summary(found, paths, data.name, views))
    if per_class:
        Console(width=max(screen.width, 110)).print(class_table(found, titles), markup=False)
    if reliability is not None:
        screen.print(f"picture: {reliability}", highlight=False, markup=False)
    return 0


class Renumbered:
    """A part of a data set whose labels are numbers of a network's classes: a `minialex.data.Split`."""

    def __init__(self, split: Split, numbers: NDArray[np.int64]) -> None:
        self.split = split
        self.labels = numbers[split.labels]
        self.size = split.size
        self.read = split.read

    def __len__(self) -> int:
        return len(self.split)


def shared_classes(network: Weights, data: DataSet, path: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The names of a network's classes, and which of them each class of the data is.

    Raises:
        ConfigurationError: If the data has a class that the network does not know.
    """
    known = network.class_names
    if not known:  # nobody said: in the data's order, if there are as many
        if len(data.class_names) != network.recipe.classes:
            raise ConfigurationError(
                f"{path} does not say what its {network.recipe.classes} classes are, and '{data.name}' has "
                f"{len(data.class_names)}: import it with --class-names FILE"
            )
        known = data.class_names
    place = {name: number for number, name in enumerate(known)}
    for name in data.class_names:
        if name not in place:
            raise ConfigurationError(
                f"'{data.name}' has other classes than {path} was trained on: '{name}' is not among those"
            )
    return known, np.array([place[name] for name in data.class_names], np.int64)


def summary(found: Evaluation, paths: Sequence[Path], data: str, views: int) -> Table:
    """Errors, loss and calibration in a few lines."""
    table = Table(box=None, show_header=False, highlight=False)
    table.add_row("network" if len(paths) == 1 else f"average of {len(paths)}", ", ".join(map(str, paths)))
    table.add_row("data", f"{data}, {len(found.labels):,} validation images, {views} view{'s' if views > 1 else ''}")
    table.add_row("top-1 error", found.words(1))
    table.add_row("top-5 error", found.words(5))
    table.add_row("loss", f"{found.loss:.4f}")
    measured = scores.calibration(found)
    believes = "too sure" if measured.overconfidence > 0 else "not sure enough"
    table.add_row(
        "calibration", f"expected error {measured.expected_error:.2%}; {believes} by {abs(measured.overconfidence):.2%}"
    )
    return table


def class_table(found: Evaluation, names: tuple[str, ...]) -> Table:
    """Every class in a row, those with most errors first."""
    table = Table(highlight=False)
    for name in ("class", "images", "top-1 error", "top-5 error", "probability", "most often taken for"):
        table.add_column(name, justify="left" if name in ("class", "most often taken for") else "right")
    for score in sorted(scores.by_class(found), key=lambda score: -score.top1_error):
        taken = "" if score.taken_for is None else f"{scores.name_of(names, score.taken_for)} ({score.taken})"
        numbers = (score.top1_error, score.top5_error, score.probability)
        table.add_row(scores.name_of(names, score.label), f"{score.images:,}", *(f"{n:.1%}" for n in numbers), taken)
    return table
