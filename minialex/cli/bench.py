"""``minialex bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from minialex.cli.options import Machine, RecipeOption, check_writable, overrides, with_classes
from minialex.errors import ConfigurationError, nearest

if TYPE_CHECKING:
    from minialex.recipe.fields import Recipe

BENCH_SECONDS = 10.0  # for which reading a data set is timed


def bench(
    context: typer.Context,
    recipe: RecipeOption = "alexnet-2012",
    kind: Annotated[str, typer.Option(help="train (a training step) or infer (one view of a batch)")] = "train",
    data: Annotated[str | None, typer.Option(help="time how fast this data set is read instead; see `train`")] = None,
    *,
    machine: Machine,
    batch_size: Annotated[int | None, typer.Option(help="images in one step; default the recipe's")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="number of steps timed whole, and again part by part")] = 5,
    floors: Annotated[
        bool, typer.Option(help="measure the machine's peak rates and show each part's floor, the least time possible")
    ] = True,
    json: Annotated[Path | None, typer.Option("--json", help="write all figures to this file")] = None,
    picture: Annotated[Path | None, typer.Option(help="draw the times as this .png file")] = None,
) -> None:
    """Time a step of any network on any backend, in total and layer by layer, beside the least time possible.

    The images are random numbers. Any recipe field is also an option: --columns 1 --dtype float64 …
    """
    from minialex.engine.session import placement_of
    from minialex.figures import bench as figures
    from minialex.figures import pictures
    from minialex.recipe.toml import load
    from minialex.screen.terminal import console, waiting
    from minialex.speed.bench import measure
    from minialex.speed.machine import describe
    from minialex.storage.atomic import write_json

    changes = overrides(context.args) | ({} if batch_size is None else {"batch_size": batch_size})
    check_writable(json, "--json")
    if data is not None:
        return bench_data(data, load(recipe).replace(**changes), json)
    if kind not in ("train", "infer"):
        raise ConfigurationError(f"--kind takes train or infer, got '{kind}'.{nearest(kind, ('train', 'infer'))}")
    check_writable(picture, "--picture", ".png")
    subject = with_classes(load(recipe).replace(**changes))
    backend = machine.load(subject.precision)
    screen = console()
    with waiting(screen, "preparing") as say:
        timings = measure(
            subject, backend, placement_of(backend, machine.devices, subject.columns),
            "train" if kind == "train" else "infer", repeats=repeats, threads=machine.threads, floors=floors,
            progress=lambda what, done: say(f"{what} ({done} of {2 * repeats + 2} steps done)"),
        )  # fmt: skip
    screen.print(figures.title(timings), style="bold")
    console(least=110).print(figures.table(timings).rich())
    for line in figures.lines(timings):
        screen.print(line)
    if json is not None:
        write_json(json, {**timings.as_dict(), **describe()})
        screen.print(f"figures     {json}")
    if picture is not None:
        pictures.save(figures.picture(timings), picture)
        screen.print(f"picture     {picture}")


def bench_data(name: str, recipe: Recipe, json: Path | None) -> None:
    """Time the loader on a data set, used as training with a recipe would use it."""
    from minialex.screen.formats import plural, readable_size
    from minialex.screen.terminal import console, metered
    from minialex.speed import loading
    from minialex.speed.machine import describe
    from minialex.storage.atomic import write_json

    screen = console()
    with metered(screen) as meter:
        rates = loading.bench_data(
            name, recipe.batch_size, BENCH_SECONDS, threads=recipe.loader_threads, seed=recipe.seed,
            progress=lambda images: meter.tell("reading", images),
        )  # fmt: skip
    first = rates["first_readings"]
    screen.print(
        f"data        {rates['data']}: {plural(rates['images_in_set'], 'training image')} of {rates['image_size']} x "
        f"{rates['image_size']}, {readable_size(rates['bytes_in_set'])}"
    )
    screen.print(
        f"read        {plural(rates['images'], 'image')} in {rates['seconds']:.1f} s, shuffled, batches of "
        f"{rates['batch_size']}, {plural(rates['threads'], 'thread')}"
        + (f", {first:,} of them checked against their checksums" if first else "")
    )
    screen.print(
        f"rate        {rates['images_per_second']:,.0f} images/s, {rates['megabytes_per_second']:,.0f} MB/s; the "
        f"longest wait for a batch was {rates['slowest_batch_seconds']:.3f} s"
    )
    if json is not None:
        write_json(json, {**rates, **describe()})
        screen.print(f"figures     {json}")
