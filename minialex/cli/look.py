"""The commands ``minialex look …`` and ``minialex features``: their options. What they do is in the module beside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.options import BackendOption, DebugOption, DevicesOption, ThreadsOption

app = typer.Typer(
    help="Look inside a trained network: kernels, activations, what it depends on, what it finds similar.",
    rich_markup_mode=None,
)

Run = Annotated[Path, typer.Argument(help="a run folder or checkpoint")]
ImageFile = Annotated[Path | None, typer.Argument(help="an image file; else one of the run's validation images")]
ImageFiles = Annotated[list[Path] | None, typer.Argument(help="image files; else some of the run's validation images")]
Data = Annotated[str | None, typer.Option("--data", help="another data set than the run's own")]
Label = Annotated[str | None, typer.Option("--label", help="class to watch; else the most probable one")]
Batch = Annotated[int, typer.Option("--batch-size", min=1, help="images at a time")]


@app.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def kernels(
    runs: Annotated[list[Path], typer.Argument(help="run folders or checkpoints, one or more")],
    picture: Annotated[Path, typer.Option(help="where the picture of the first one goes")] = Path("kernels.png"),
    debug: DebugOption = False,
) -> int:
    """The first layer's kernels by column: how much of each is colour, and do the columns differ (figure 3)?"""
    from minialex.cli import look_commands as commands

    return commands.kernels(runs, picture)


@app.command()
def activations(
    run: Run,
    image: ImageFile = None,
    layer: Annotated[str, typer.Option(help="a layer's name; see `minialex summary`")] = "conv1",
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("activations.png"),
    data: Data = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    debug: DebugOption = False,
) -> int:
    """What a layer gives for an image: all its maps, or all its neurons."""
    from minialex.cli import look_commands as commands

    return commands.activations(commands.Asked(run, data, backend, devices, threads), image, layer, picture)


@app.command()
def occlusion(
    run: Run,
    image: ImageFile = None,
    label: Label = None,
    size: Annotated[int | None, typer.Option(help="side of the square that covers; a seventh of the crop")] = None,
    stride: Annotated[int | None, typer.Option(help="pixels from one square to the next; half its side")] = None,
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("occlusion.png"),
    data: Data = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Batch = 100,
    debug: DebugOption = False,
) -> int:
    """Which parts of an image an answer depends on: a square covers one place after another."""
    from minialex.cli import look_commands as commands

    asked = commands.Asked(run, data, backend, devices, threads, batch_size)
    return commands.occlusion(asked, image, label, size, stride, picture)


@app.command()
def translation(
    run: Run,
    images: ImageFiles = None,
    label: Label = None,
    count: Annotated[int, typer.Option("--images", min=1, help="validation images, if no files are given")] = 100,
    reach: Annotated[float, typer.Option(help="largest shift, as a share of the crop's side")] = 0.5,
    steps: Annotated[int, typer.Option(help="shifts along an axis, an odd number")] = 9,
    scale: Annotated[float, typer.Option(help="shrink the content to this share of its side first")] = 1.0,
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("translation.png"),
    data: Data = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Batch = 100,
    debug: DebugOption = False,
) -> int:
    """Is a class still among the top five when its object stands off the centre (figure 4)? Images are moved about."""
    from minialex.cli import look_commands as commands

    asked = commands.Asked(run, data, backend, devices, threads, batch_size)
    return commands.translation(asked, images or [], label, count, reach, steps, scale, picture)


@app.command()
def excite(
    run: Run,
    layer: Annotated[str, typer.Option(help="a layer's name; see `minialex summary`")] = "conv5",
    units: Annotated[str | None, typer.Option(help="numbers of its channels or neurons: 3,17; else 4 a column")] = None,
    count: Annotated[int, typer.Option(min=1, help="images a unit")] = 9,
    split: Annotated[str, typer.Option(help="train or validation")] = "validation",
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("excite.png"),
    data: Data = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Batch = 100,
    debug: DebugOption = False,
) -> int:
    """The images of a data set that excite units most, with the part of them that the unit sees."""
    from minialex.cli import look_commands as commands

    asked = commands.Asked(run, data, backend, devices, threads, batch_size)
    return commands.excite(asked, layer, units, count, split, picture)


@app.command()
def neighbours(
    run: Run,
    images: ImageFiles = None,
    count: Annotated[int, typer.Option(min=1, help="neighbours an image")] = 6,
    index: Annotated[
        Path | None, typer.Option(help="folder of the training set's features, written at first use; in the run")
    ] = None,
    search: Annotated[str, typer.Option(help="exact, or faiss for a large training set")] = "exact",
    picture: Annotated[Path, typer.Option(help="where the picture goes")] = Path("neighbours.png"),
    data: Data = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Batch = 100,
    debug: DebugOption = False,
) -> int:
    """The training images nearest to an image in the last hidden layer's features (figure 4, right)."""
    from minialex.cli import look_commands as commands

    asked = commands.Asked(run, data, backend, devices, threads, batch_size)
    return commands.neighbours(asked, images or [], count, index, search, picture)


def features(
    run: Run,
    folder: Annotated[Path, typer.Argument(help="where to; goes on there if it was stopped")],
    layer: Annotated[str | None, typer.Option(help="a layer's name; else the last hidden layer")] = None,
    split: Annotated[str, typer.Option(help="train or validation")] = "train",
    format: Annotated[str, typer.Option(help="npy, or parquet (needs pyarrow)")] = "npy",
    data: Data = None,
    backend: BackendOption = None,
    devices: DevicesOption = None,
    threads: ThreadsOption = None,
    batch_size: Batch = 100,
    debug: DebugOption = False,
) -> int:
    """Write a layer's activations for a whole data set, as NumPy or Parquet; stopped, it goes on when run again."""
    from minialex.cli import look_commands as commands

    asked = commands.Asked(run, data, backend, devices, threads, batch_size)
    return commands.features(asked, folder, layer, split, format)
