"""The report of a run with its pictures, written from the run folder and an evaluation."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minialex.data import DataSet
from minialex.evaluation.errors import Evaluation
from minialex.recipe.fields import Recipe
from minialex.runs import checkpoint
from minialex.runs.run_folder import RunPaths, read_metrics
from minialex.screen.formats import plural
from minialex.speed import machine
from minialex.storage import atomic
from minialex.training import finetuning
from minialex.training.loop import energy_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EXAMPLES = 24  # images that a report shows
FEW = slice(0, 8)  # those of them in the picture of predictions


def write_report(
    paths: RunPaths,
    recipe: Recipe,
    data: DataSet,
    found: Evaluation,
    warnings: list[str],
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Write ``report.html`` and the pictures of a run; each file is whole or not there.

    Args:
        found: evaluation of the newest weights on the validation set
        warnings: the guards' warnings
        stop: asked before each file whether to leave the rest out

    Returns:
        Whether the report was written.

    Raises:
        ResourceError, ConfigurationError: If they cannot be written.
    """
    from minialex.figures import pictures, report  # these import matplotlib

    metrics = read_metrics(paths.metrics)
    last = checkpoint.latest(paths.checkpoints, lambda message: None)
    assert last is not None
    first = next((w for w in last.weights.values() if w.ndim == 4 and w.shape[1] == 3), None)  # reads the image
    indices = examples(found)
    images, probs, labels = data.validation.read(indices), found.probs[indices], found.labels[indices]
    atomic.make_folder(paths.pictures)
    drawings: dict[str, Callable[[], Figure]] = {"curves": partial(pictures.curves, metrics, len(data.class_names))}
    if first is not None:
        drawings["kernels"] = partial(pictures.kernels, first, recipe.columns)
    drawings["confusion"] = partial(pictures.confusion, found.confusion, data.titles)
    drawings["predictions"] = partial(pictures.predictions, images[FEW], probs[FEW], data.titles, labels[FEW])
    for name, figure in drawings.items():
        if stop():
            return False
        pictures.save(figure(), paths.pictures / f"{name}.png")
    if stop():
        return False
    report.write(
        paths.report,
        title=f"{recipe.model} on {data.name}",
        facts=(
            ("data", f"{data.name}: {len(data.train):,} training and {len(data.validation):,} validation images"),
            ("classes", f"{len(data.class_names)}"),
            ("network", f"{recipe.model}, {_parameters(last.weights)} in {plural(recipe.columns, 'column')}"),
            ("seed", f"{recipe.seed}"),
            *_beginning(paths),
            *_machine(recipe),
            *_energy(paths),
            *_commands(paths, recipe),
        ),
        metrics=metrics,
        kernels=first,
        columns=recipe.columns,
        confusion=found.confusion,
        images=images,
        probs=probs,
        labels=labels,
        class_names=data.titles,
        warnings=warnings,
        recipe_toml=recipe.to_toml(),
    )
    return True


def _parameters(weights: Mapping[str, NDArray[np.floating[Any]]]) -> str:
    return plural(sum(array.size for array in weights.values()), "parameter")


def _machine(recipe: Recipe) -> list[tuple[str, str]]:
    """Facts about the machine that writes the report, which is the one where training ended."""
    described = machine.describe()
    about, versions = described["machine"], described["versions"]
    assert isinstance(about, dict)
    assert isinstance(versions, dict)
    precision = f", {recipe.precision}" if recipe.precision not in ("", recipe.dtype) else ""
    return [
        ("backend", f"{recipe.backend} ({recipe.devices}), {recipe.dtype}{precision}"),
        ("machine", f"{about['processor']}, {plural(int(about['cores'] or 1), 'core')}; {about['system']}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in versions.items())),
        ("date", str(described["date"])),
    ]


def _energy(paths: RunPaths) -> list[tuple[str, str]]:
    """The energy that training took, if the machine measures it."""
    taken = energy_of(paths.folder)
    if not taken:
        return []
    parts = ", ".join(f"{part} {watt_hours(value)}" for part, value in taken.items())
    return [("energy", f"{watt_hours(sum(taken.values()))} ({parts}), with all else that ran there meanwhile")]


def watt_hours(value: float) -> str:
    """An energy to three digits: ``"0.42 Wh"``, ``"12.3 Wh"``, ``"4.51 kWh"``."""
    if value >= 1000:
        return f"{float(f'{value / 1000:.3g}'):,g} kWh"
    return f"{float(f'{value:.3g}'):g} Wh"


def _commands(paths: RunPaths, recipe: Recipe) -> list[tuple[str, str]]:
    folder = shlex.quote(str(paths.folder))
    here = Path(sys.argv[0]).name in ("minialex", "__main__.py") and sys.argv[1:2] == ["train"]
    return [
        *([("this run was trained by", shlex.join(["minialex", *sys.argv[1:]]))] if here else []),
        ("train the same again", f"minialex train --recipe {shlex.quote(str(paths.recipe))} --out OTHER"),
        ("evaluate", f"minialex evaluate {folder} --views 10"),
        ("predict", f"minialex predict {folder} IMAGE…"),
        ("go on", f"minialex train --resume {folder} --epochs {recipe.epochs + 5}"),
    ]


def _beginning(paths: RunPaths) -> list[tuple[str, str]]:
    """Facts about the network that a run started from."""
    known = finetuning.facts(paths.folder)
    if known is None:
        return []
    return [
        ("begun from", str(known.get("from"))),
        ("layers taken", ", ".join(known.get("taken", []))),
        ("layers drawn anew", ", ".join(known.get("drawn_anew", {})) or "none"),
    ]


def examples(found: Evaluation) -> NDArray[np.int64]:
    """Indices of images to show: spread over the validation set, every second one an error while there are any."""
    right = found.probs.argmax(axis=1) == found.labels
    chosen: list[int] = []
    for group in (np.flatnonzero(~right), np.flatnonzero(right)):
        count = min(EXAMPLES // 2, len(group))
        chosen += list(group[np.linspace(0, len(group) - 1, count).astype(int)]) if count else []
    mixed = [i for pair in zip(chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :], strict=False) for i in pair]
    return np.asarray(mixed or chosen, np.int64)
