"""The command ``minialex evaluate``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from minialex.api.net import TrainedNet, check_views, data_for, evaluate_together
from minialex.backend import registry
from minialex.cli.commands import console
from minialex.engine.opening import precision_of, validation_for
from minialex.evaluation import calibration as scores
from minialex.evaluation.errors import Evaluation
from minialex.runs import weights_file


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
    check_views(views)
    networks = [weights_file.find(path) for path in paths]
    asked = [precision_of(network.recipe, precision) for network in networks]
    backends = {p: registry.load(backend_name, threads=threads, precision=p) for p in dict.fromkeys(asked)}
    nets = [
        TrainedNet(network, backends[p], devices, str(path))
        for path, network, p in zip(paths, networks, asked, strict=True)
    ]
    data = data_for(nets[0], data_name)
    screen = console()
    with Progress(
        console=Console(stderr=True) if as_json else screen,
        transient=True,
        disable=as_json or not screen.is_terminal,
    ) as progress:
        task = progress.add_task("evaluating")
        found = evaluate_together(
            nets,
            views=views,
            data=data,
            batch_size=batch_size,
            progress=lambda done, images: progress.update(task, completed=done, total=images),
        )
    names, _ = validation_for(networks[0], data, str(paths[0]))
    titles = networks[0].words or names
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
