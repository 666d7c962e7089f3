"""``minialex look neighbours``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from minialex.cli.look.arguments import ImageFiles, PictureOption, Run
from minialex.cli.options import BatchOption, DataOption, Machine
from minialex.errors import CheckpointError, ConfigurationError, nearest

SEARCHES = ("exact", "faiss")
SHOWN = 8  # images in the picture
OTHERS = 100  # training images that neighbours are compared with in pixels


def neighbours(
    run: Run,
    images: ImageFiles = None,
    count: Annotated[int, typer.Option(min=1, help="neighbours per image")] = 6,
    index: Annotated[
        Path | None,
        typer.Option(help="folder for the training set's features, written on first use; default in the run"),
    ] = None,
    search: Annotated[str, typer.Option(help="exact, or faiss for a large training set")] = "exact",
    picture: PictureOption = Path("neighbours.png"),
    data: DataOption = None,
    *,
    machine: Machine,
    batch_size: BatchOption = 100,
) -> int:
    """Find the training images whose last hidden layer's features are nearest to an image's (figure 4, right)."""
    import numpy as np

    from minialex import philox
    from minialex.cli.look.subject import open_run, save, write_features
    from minialex.figures import look as figures
    from minialex.look import neighbours as near
    from minialex.look.features import open_features
    from minialex.screen.sheet import Sheet
    from minialex.screen.terminal import console, counting

    if search not in SEARCHES:
        raise ConfigurationError(f"--search takes {' or '.join(SEARCHES)}, got '{search}'.{nearest(search, SEARCHES)}")
    screen = console()
    subject = open_run(run, machine, data)
    shown = subject.images(images or [], SHOWN)
    layer = near.feature_layer(subject.session.network)
    train = subject.data().train
    folder = index or run_folder(run) / f"features-{layer}"
    manifest, exit_code = write_features(screen, subject, train, "train", layer, folder, "npy", batch_size)
    if exit_code:
        return exit_code
    features = open_features(folder)
    wanted = subject.session.activations(shown.pixels, [layer])[layer]
    if search == "faiss":
        fast = near.FaissIndex.open(features)
        if fast is None:
            with counting(screen, "building the index", len(features.labels)) as progress:
                fast = near.FaissIndex.build(features, progress)
        how = f"faiss, which found {fast.recall:.1%} of the exact neighbours of 100 images when it was built"
        result = fast.nearest(wanted, count)
    else:
        how = "exact search"
        with counting(screen, "searching", len(features.labels)) as progress:
            result = near.nearest(features.values, wanted, count, progress)
    labels = features.labels[result.images]
    rows = []
    for name, classes, distances in zip(shown.names, labels, result.distances, strict=True):
        words = [f"{subject.name(label)} ({d:.3g})" for label, d in zip(classes, distances, strict=True)]
        rows.append((name, ", ".join(words)))
    header = ("image", "nearest training images: class (distance)")
    screen.print(Sheet("", header, rows, "l").rich(frame=False))
    size = math.prod(manifest.shape)
    screen.print(f"distances in the {size:,} features of {layer} to {len(features.labels):,} training images; {how}")
    if shown.labels is not None:
        same = float((labels == shown.labels[:, None]).mean())
        share = float((features.labels[:, None] == shown.labels).mean())
        screen.print(f"{same:.1%} of the neighbours have the image's own class; {share:.1%} of all do")
    close = np.stack([train.read(row) for row in result.images])
    stream = philox.Stream(0, philox.purpose("look/pixels"))
    others = train.read(np.sort(philox.permutation(stream, len(train))[:OTHERS]))
    ranks = near.pixel_ranks(shown.pixels, close, others)
    screen.print(
        f"compared as pixels, {ranks.mean():.1%} of {len(others)} training images chosen at random are nearer than "
        "such a neighbour (0 % if neighbours were also nearest in pixels; 50 % if they were like any image)"
    )
    few = slice(0, SHOWN)
    figure = figures.neighbours(
        list(shown.pixels[few]), shown.names[few], [list(row) for row in close[few]],
        near.Neighbours(result.images[few], result.distances[few]), labels[few], subject.class_names,
    )  # fmt: skip
    save(screen, figure, picture, f" (the first {SHOWN} images)" if len(shown.pixels) > SHOWN else "")
    return 0


def run_folder(path: Path) -> Path:
    """The run folder that a path names, or that holds the checkpoint it names."""
    for folder in (path, path.parent.parent):
        if (folder / "recipe.toml").is_file():
            return folder
    raise CheckpointError(f"{path} is not in a run folder: say where to put the index with --index FOLDER")
