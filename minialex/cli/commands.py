"""What the commands do. `minialex.cli.app` has their options; this module is imported when one of them runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.data import DataSet, absolute, load
from minialex.data.images import read_image
from minialex.data.store.store import is_store
from minialex.engine.session import Session, placement_of
from minialex.errors import CheckpointError, ConfigurationError, DataError, MinialexError, nearest
from minialex.evaluation.errors import Evaluation
from minialex.network import variants
from minialex.recipe.differences import DIFFERENCES
from minialex.recipe.fields import Recipe, fields
from minialex.recipe.toml import built_in
from minialex.recipe.toml import load as load_recipe
from minialex.runs import checkpoint
from minialex.runs import weights_file as weights
from minialex.runs.run_folder import Run, read_metrics
from minialex.runs.weights_file import Weights, recipe_of
from minialex.speed import machine
from minialex.storage import atomic
from minialex.training import finetuning as transfer
from minialex.training.display import TrainingDisplay, duration
from minialex.training.loop import Result, prepare
from minialex.training.loop import train as run_training

EXAMPLES = 24  # images that a report shows
AT_ONCE = 64  # images that are predicted together


def console() -> Console:
    """Standard output; made when it is needed, so that it follows a redirection."""
    return Console(soft_wrap=True)


def load_data(recipe: Recipe) -> DataSet:
    """The data set that a recipe names."""
    if recipe.data == "imagenet":
        raise DataError(
            "no ImageNet here: make a store with `minialex prepare ARCHIVES STORE` and give --data STORE, or give the "
            "path of a folder of images"
        )
    size = recipe.image_size
    return load(
        recipe.data,
        size=size,
        train_images=recipe.train_images or None,
        validation_images=recipe.validation_images or None,
    )


def choose_recipe(name: str | None, changes: dict[str, Any]) -> Recipe:
    """The recipe that is named, else of the network to begin with, of the data, or ``shapes``; with the changes."""
    if name is None and changes.get("init_from"):
        return transfer.recipe_for(Path(changes["init_from"]).expanduser()).replace(**changes)
    if name is None and is_store(Path(str(changes.get("data", ""))).expanduser()):
        return load_recipe("alexnet-2012").replace(**{"classes": 0, **changes})  # as many as the store has
    if name is None:
        source = str(changes.get("data", "shapes")).partition(":")[0]
        name = source if source in built_in() else "small" if "data" in changes else "shapes"
    return load_recipe(name).replace(**changes)


def train(
    recipe_name: str | None,
    changes: dict[str, Any],
    threads: int | None,
    resume: Path | None,
    out: Path | None,
) -> int:
    """Train in a new run folder, or go on in an old one; returns the exit code."""
    screen = console()
    if resume is not None:
        if out is not None or recipe_name is not None:
            raise ConfigurationError(
                "--resume goes on with the run's own folder and recipe: leave out --out and --recipe"
            )
        path = resume
        recipe = recipe_of(resume).replace(**changes)
        different = recipe.differences(recipe_of(resume))
        fixed = [name for name in different if fields()[name][0] == "network"]
        if "init_from" in different or "init_layers" in different:
            raise ConfigurationError(f"{resume} has begun already: leave out --init, or train into another folder")
        if fixed:
            raise CheckpointError(
                f"{resume} holds another network: --{fixed[0].replace('_', '-')} cannot change on resume"
            )
        if recipe.backend != recipe_of(resume).backend:
            screen.print(
                f"warning: the run began on backend '{recipe_of(resume).backend}'; on '{recipe.backend}' it goes on "
                "with other roundings",
                highlight=False,
                markup=False,
            )
    else:
        recipe = choose_recipe(recipe_name, changes)
        recipe = recipe.replace(data=absolute(recipe.data))  # the run may be used from elsewhere
        if recipe.init_from:
            recipe = recipe.replace(init_from=str(Path(recipe.init_from).expanduser().resolve()))
        label = Path(recipe.data.partition(":")[0]).name or "run"
        path = out or Path("runs") / f"{label}-{time.strftime('%Y%m%d-%H%M%S')}"
    name = recipe.backend or registry.default_name()
    backend = registry.load(name, threads=threads, precision=recipe.precision)
    placement = placement_of(backend, recipe.devices or None, recipe.columns)
    recipe = recipe.replace(backend=name, devices=",".join(placement))
    variants.build(recipe.replace(classes=recipe.classes or 10))  # say what does not fit before data is read
    data = load_data(recipe)
    recipe = prepare(recipe, data)
    # before there is a run, so that a network that does not fit leaves none behind
    start = transfer.begin(recipe, data.class_names) if recipe.init_from and resume is None else None
    with Run.resume(path) if resume is not None else Run.create(path, recipe.to_toml()) as run:
        if resume is not None and changes:
            atomic.write_text(run.paths.recipe, recipe.to_toml())
        with TrainingDisplay(screen) as display:
            result = run_training(
                recipe, data, backend, placement, run, display, resume=resume is not None, start=start
            )
        finish(run, recipe, data, result, screen)
    return result.exit_code


def finish(run: Run, recipe: Recipe, data: DataSet, result: Result, screen: Console) -> None:
    """Pictures and the report of a finished run; for a stopped one, how to go on."""
    if result.stopped:
        screen.print(f"stopped by {result.stopped} after step {result.progress.step}; go on with:", highlight=False)
        screen.print(f"  minialex train --resume {run.paths.folder}", highlight=False)
        return
    assert result.evaluation is not None
    write_report(run, recipe, data, result, result.evaluation)
    found = result.evaluation
    screen.print(
        f"validation top-1 error {found.words(1)}, top-5 {found.error(5):.2%}, after "
        f"{result.epochs} epochs, {duration(result.progress.seconds)}; "
        f"guessing would be {100 * (1 - 1 / recipe.classes):.3g}%",
        highlight=False,
    )
    screen.print(f"report       {run.paths.report}", highlight=False)
    screen.print(f"evaluate     minialex evaluate {run.paths.folder} --views 10", highlight=False)
    screen.print(f"predict      minialex predict {run.paths.folder} IMAGE…", highlight=False)


def write_report(run: Run, recipe: Recipe, data: DataSet, result: Result, found: Evaluation) -> None:
    """The run's pictures and its report."""
    from minialex.figures import pictures, report

    atomic.make_folder(run.paths.pictures)
    metrics = read_metrics(run.paths.metrics)
    last = checkpoint.latest(run.paths.checkpoints, lambda message: None)
    assert last is not None
    first = last.weights["conv1.weight"]
    indices = examples(found)
    images = data.validation.read(indices)
    pictures.save(pictures.curves(metrics, len(data.class_names)), run.paths.pictures / "curves.png")
    pictures.save(pictures.kernels(first, recipe.columns), run.paths.pictures / "kernels.png")
    pictures.save(pictures.confusion(found.confusion, data.titles), run.paths.pictures / "confusion.png")
    few = slice(0, 8)
    pictures.save(
        pictures.predictions(images[few], found.probs[indices[few]], data.titles, found.labels[indices[few]]),
        run.paths.pictures / "predictions.png",
    )
    report.write(
        run.paths.report,
        title=f"{recipe.model} on {data.name}",
        facts=(
            ("training images", f"{len(data.train):,}"),
            ("classes", f"{len(data.class_names)}"),
            ("seed", f"{recipe.seed}"),
            *_beginning(run),
            ("evaluate", f"minialex evaluate {run.paths.folder} --views 10"),
            ("predict", f"minialex predict {run.paths.folder} IMAGE…"),
            ("go on", f"minialex train --resume {run.paths.folder} --epochs {recipe.epochs + 5}"),
        ),
        metrics=metrics,
        kernels=first,
        columns=recipe.columns,
        confusion=found.confusion,
        images=images,
        probs=found.probs[indices],
        labels=found.labels[indices],
        class_names=data.titles,
        warnings=result.progress.warnings,
        recipe_toml=recipe.to_toml(),
    )


def _beginning(run: Run) -> list[tuple[str, str]]:
    """Facts of the report about the network that a run began with."""
    known = transfer.facts(run.paths.folder)
    if known is None:
        return []
    return [
        ("begun from", str(known.get("from"))),
        ("layers taken", ", ".join(known.get("taken", []))),
        ("layers drawn anew", ", ".join(known.get("drawn_anew", {})) or "none"),
    ]


def examples(found: Evaluation) -> Any:
    """Indices of images to show: spread over the validation set, every other one an error as far as there are any."""
    wrong = np.flatnonzero(found.probs.argmax(axis=1) != found.labels)
    right = np.flatnonzero(found.probs.argmax(axis=1) == found.labels)
    chosen: list[int] = []
    for group in (wrong, right):
        count = min(EXAMPLES // 2, len(group))
        chosen += list(group[np.linspace(0, len(group) - 1, count).astype(int)]) if count else []
    mixed = [i for pair in zip(chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :], strict=False) for i in pair]
    return np.asarray(mixed or chosen, np.int64)


def open_session(path: Path, backend: Backend, devices: str | None) -> tuple[Session, Recipe, tuple[str, ...]]:
    """A session with the weights found at a path (`weights_file.find`), its recipe and its class names."""
    found = weights.find(path)
    return session_of(found, backend, devices), found.recipe, found.labels


def session_of(found: Weights, backend: Backend, devices: str | None) -> Session:
    """A session with a network's weights."""
    placement = placement_of(backend, devices, found.recipe.columns)
    return Session(found.recipe, backend, placement, found.statistics, found.tensors)


def precision_of(recipe: Recipe, asked: str | None) -> str:
    """The precision that is asked for, else that in which a network was trained.

    Raises:
        ConfigurationError: If there is no such precision, or it does not go with the recipe's dtype.
    """
    found: str = recipe.precision if asked is None else recipe.replace(precision=asked).precision
    return found


def predict(
    path: Path,
    images: Sequence[Path],
    views: int,
    picture: Path,
    backend_name: str | None,
    devices: str | None,
    threads: int | None,
    precision: str | None,
) -> int:
    """The most probable classes of image files."""
    if views not in (1, 10):
        raise ConfigurationError(f"--views takes 1 or 10, got {views}")
    from minialex.figures import pictures

    screen = console()
    found = weights.find(path)
    backend = registry.load(backend_name, threads=threads, precision=precision_of(found.recipe, precision))
    titles = found.titles
    pixels = np.stack([read_image(image, found.recipe.image_size) for image in images])
    session = session_of(found, backend, devices)
    parts = [pixels[first : first + AT_ONCE] for first in range(0, len(pixels), AT_ONCE)]
    probs = np.concatenate([session.probabilities(part, views=views)[0] for part in parts])[:, : len(titles)]
    for image, row in zip(images, probs, strict=True):
        best = np.argsort(-row, kind="stable")[:5]
        screen.print(f"{image}", highlight=False, style="bold", markup=False)
        for label in best:
            screen.print(f"  {row[label]:7.2%}  {titles[label]}", highlight=False, markup=False)
    shown = min(len(images), 24)
    pictures.save(pictures.predictions(pixels[:shown], probs[:shown], titles, None), picture)
    rest = f" (the first {shown} images)" if shown < len(images) else ""
    screen.print(f"picture: {picture}{rest}", highlight=False, markup=False)
    return 0


def summary(recipe_name: str, changes: dict[str, Any], batch_size: int | None) -> None:
    """A network in numbers."""
    from minialex.engine.summary import PAPER_TOTALS, summarise

    recipe = load_recipe(recipe_name).replace(**changes)
    found = summarise(recipe, batch_size)
    columns = recipe.columns
    table = Table(title=f"{recipe.model}, {columns} column{'s' if columns > 1 else ''}", highlight=False)
    for name, side in (
        ("layer", "left"), ("output of a column", "left"), ("reads", "left"), ("kernels", "left"),
        ("parameters", "right"), ("neurons", "right"), ("multiply-adds", "right"), ("values exchanged", "right"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if side == "right" else "left")
    for row in found.rows:
        shape = "×".join(map(str, row.output)) + (f" ×{row.columns}" if row.columns > 1 else "")
        numbers = (row.parameters, row.neurons, row.multiply_adds, row.received)
        texts = [f"{n:,}" if n else "" for n in numbers]
        table.add_row(row.layer, shape, row.reads, row.kernel, *texts)
    table.add_section()
    table.add_row(
        "total", "", "", "", f"{found.parameters:,}", f"{found.neurons:,}", f"{found.multiply_adds:,}",
        f"{sum(row.received for row in found.rows):,}",
    )  # fmt: skip
    if recipe.model == "alexnet":
        totals = [f"{PAPER_TOTALS[name]:,}" for name in ("parameters", "neurons", "multiply_adds")]
        table.add_row("the paper's", "", "", "says 60 million, 650,000", *totals, "")
    screen = Console(width=max(console().width, 130))
    screen.print(table)
    screen.print(
        f"a training step takes {found.training_multiply_adds:,} multiply-adds an image; with a batch "
        f"of {found.batch_size}: weights, momentum and gradients {found.parameter_bytes / 2**20:,.0f} MiB, activations "
        f"and their gradients {found.activation_bytes / 2**20:,.0f} MiB at most",
        highlight=False,
    )


def bench(
    recipe_name: str,
    changes: dict[str, Any],
    kind: str,
    backend_name: str | None,
    devices: str | None,
    threads: int | None,
    repeats: int,
    floors: bool,
    json: Path | None,
    picture: Path | None,
) -> None:
    """Where the time of a step goes."""
    from minialex.cli import bench_report
    from minialex.speed import bench as timing

    if kind not in ("train", "infer"):
        raise ConfigurationError(f"--kind takes train or infer, got '{kind}'.{nearest(kind, ('train', 'infer'))}")
    for path in (json, picture):
        if path is not None and not path.absolute().parent.is_dir():
            raise ConfigurationError(f"cannot write {path}: there is no folder {path.parent}")
    if picture is not None and picture.suffix.lower() != ".png":
        raise ConfigurationError(f"--picture {picture}: pictures are PNG files; give a name that ends with .png")
    recipe = load_recipe(recipe_name).replace(**changes)
    if recipe.classes == 0:
        recipe = recipe.replace(classes=1000 if recipe.model == "alexnet" else 10)
    backend = registry.load(backend_name, threads=threads, precision=recipe.precision)
    placement = placement_of(backend, devices, recipe.columns)
    screen = console()
    with screen.status("preparing") if screen.is_terminal else nullcontext() as status:

        def show(what: str, done: int) -> None:
            if status is not None:
                status.update(f"{what} ({done} of {2 * repeats + 2} steps done)")

        timings = timing.measure(
            recipe, backend, placement, "train" if kind == "train" else "infer", repeats=repeats, threads=threads,
            floors=floors, progress=show,
        )  # fmt: skip
    screen.print(bench_report.title(timings), highlight=False, style="bold")
    Console(width=max(screen.width, 110)).print(bench_report.table(timings))
    for line in bench_report.lines(timings):
        screen.print(line, highlight=False)
    if json is not None:
        atomic.write_json(json, {**timings.as_dict(), **machine.describe()})
        screen.print(f"figures     {json}", highlight=False, markup=False)
    if picture is not None:
        from minialex.figures import pictures

        pictures.save(bench_report.picture(timings), picture)
        screen.print(f"picture     {picture}", highlight=False, markup=False)


def backends() -> None:
    """Every installed backend, or why it cannot be used."""
    table = Table(highlight=False)
    for name in ("backend", "devices", "class"):
        table.add_column(name)
    for name, point in registry.installed().items():
        try:
            backend = registry.load(name)
            places = ", ".join(backend.devices) + (" (default)" if name == registry.default_name() else "")
        except MinialexError as error:
            places = "cannot be used: " + str(error).removeprefix(f"backend '{name}' cannot be used: ")
        table.add_row(name, escape(places), point.value)  # an install line may hold [cuda], which rich takes as its own
    console().print(table)


def recipe(name: str | None) -> None:
    """One recipe as TOML, or all fields."""
    if name is not None:
        print(load_recipe(name).to_toml(), end="")
        return
    screen = Console(width=max(console().width, 110))
    screen.print("recipes: " + ", ".join(built_in()), highlight=False)
    table = Table(highlight=False)
    for column in ("table", "field", "the paper's value", "meaning"):
        table.add_column(column)
    base = Recipe()
    for field, (home, info) in fields().items():
        meaning = info.metadata["doc"]
        if info.metadata["choices"]:
            meaning += f" ({' | '.join(info.metadata['choices'])})"
        table.add_row(home, field, str(getattr(base, field)), meaning)
    screen.print(table, markup=False)


def differences() -> None:
    """The 28 points."""
    table = Table(highlight=False, show_lines=True)
    for column in ("", "about", "the paper", "the program", "fields", "note"):
        table.add_column(column)
    for point in DIFFERENCES:
        table.add_row(str(point.number), point.topic, point.paper, point.program, "\n".join(point.fields), point.note)
    Console(width=max(console().width, 130)).print(table)


def download(name: str, folder: Path | None) -> None:
    """Fetch a data set."""
    from minialex.data.download import fetch

    print(fetch(name, folder))
