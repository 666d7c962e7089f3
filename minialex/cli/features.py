"""``minialex features``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import Run
from minialex.cli.options import BatchOption, DataOption, HostsOption, Machine, RanksOption, is_launcher


def features(
    context: typer.Context,
    run: Run,
    folder: Annotated[
        Path, typer.Argument(help="folder to write to; a stopped run of this command found there continues")
    ],
    layer: Annotated[str | None, typer.Option(help="name of a layer; default the last hidden layer")] = None,
    split: Annotated[str, typer.Option(help="train or validation")] = "train",
    format: Annotated[str, typer.Option(help="npy, or parquet (needs pyarrow)")] = "npy",
    data: DataOption = None,
    *,
    machine: Machine,
    batch_size: BatchOption = 100,
    ranks: RanksOption = None,
    hosts: HostsOption = None,
) -> int:
    """Write a layer's activations for a whole data set, as NumPy or Parquet. If stopped, run it again to continue.

    Any number of processes gives the same bytes; only the first of them writes.
    """
    from minialex.cli.look.subject import open_run, split_of, write_features
    from minialex.look.neighbours import feature_layer
    from minialex.ranks import joining, launch
    from minialex.screen.formats import plural
    from minialex.screen.terminal import console

    if is_launcher(ranks, hosts):
        return launch.start(ranks or 1, hosts, ["minialex", *context.obj])
    group, screen = joining.join(), console()
    screen.quiet = group.rank > 0  # only one rank prints
    subject = open_run(run, machine, data, group)
    name = layer or feature_layer(subject.session.network)
    subject.session.network.layer(name)
    data_set = subject.data()
    images = split_of(data_set, split)
    manifest, exit_code = write_features(screen, subject, images, split, name, folder, format, batch_size, group)
    if exit_code:
        return exit_code
    size = " × ".join(map(str, (manifest.images, *manifest.shape)))
    screen.print(f"{name} of {plural(manifest.images, f'{split} image')} of {data_set.name}: {size} {manifest.dtype}")
    if format == "npy":
        screen.print(f"read it with numpy.load({str(folder / 'features.npy')!r}, mmap_mode='r')")
    else:
        screen.print(f"read it with pyarrow.parquet.read_table({str(folder)!r})")
    return 0
