"""What the commands do. `minialex.cli.app` has their options; this module is imported when one of them runs."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from minialex.backend import registry
from minialex.engine.session import placement_of
from minialex.errors import ConfigurationError, MinialexError, nearest
from minialex.recipe.differences import DIFFERENCES
from minialex.recipe.fields import Recipe, built_in, fields
from minialex.recipe.fields import load as load_recipe
from minialex.speed import machine
from minialex.storage import atomic

EXAMPLES = 24  # images that a report shows
AT_ONCE = 64  # images that are predicted together


def console() -> Console:
    """Standard output; made when it is needed, so that it follows a redirection."""
    return Console(soft_wrap=True)


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
