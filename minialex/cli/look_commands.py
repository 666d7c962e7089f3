"""What the commands of `minialex.cli.look` do."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from minialex import philox
from minialex.backend import registry
from minialex.cli.commands import console, load_data, open_session
from minialex.data import DataSet, Split
from minialex.data.draws import centre_crop_offset
from minialex.data.images import read_image
from minialex.engine.session import Session
from minialex.errors import CheckpointError, ConfigurationError, nearest
from minialex.figures import look as drawn
from minialex.figures import pictures
from minialex.figures.pictures import name_of
from minialex.look import neighbours as near
from minialex.look import sensitivity
from minialex.look import units as exciting
from minialex.look.features import Manifest, manifest_of, open_features, write_features
from minialex.look.kernels import colour_selectivity, colour_share, column_difference
from minialex.recipe.fields import Recipe
from minialex.training.display import QUIET_SECONDS, duration
from minialex.training.signals import StopRequest

SEARCHES = ("exact", "faiss")
SHOWN = 8  # images of one picture with neighbours
OTHERS = 100  # training images that neighbours are compared with in pixels
UNITS = 4  # of a column that are shown if none are named


@dataclass(frozen=True)
class Opened:
    """A run that was opened, with what its labels mean and, where they are needed, its images."""

    session: Session
    recipe: Recipe
    class_names: tuple[str, ...]

    def data(self, name: str | None) -> DataSet:
        """The run's data set, or another one of the same classes."""
        found = load_data(self.recipe if name is None else self.recipe.replace(data=name))
        if found.class_names != self.class_names:
            raise ConfigurationError(f"'{found.name}' has other classes than the run was trained on")
        return found

    def crop(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of images [...,S,S] that the network sees."""
        first = centre_crop_offset(self.recipe.image_size, self.recipe.crop)
        return images[..., first : first + self.recipe.crop, first : first + self.recipe.crop]

    def label(self, text: str | None) -> int | None:
        """The number of a class that is given by its name or number."""
        if text is None:
            return None
        if text in self.class_names:
            return self.class_names.index(text)
        if text.isdigit() and int(text) < len(self.class_names):
            return int(text)
        raise ConfigurationError(f"the run knows no class '{text}'.{nearest(text, self.class_names)}")


@dataclass(frozen=True)
class Given:
    """Images to look at: uint8 [N,3,S,S], their labels where they are known, what to call them, and where from."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: list[str]
    source: str


@dataclass(frozen=True)
class Asked:
    """What the commands have in common: which run, another data set than its own, and where it is computed."""

    run: Path
    data: str | None = None
    backend: str | None = None
    devices: str | None = None
    threads: int | None = None
    batch_size: int = 100

    def open(self) -> Opened:
        """The run's network with its weights, where it was asked for."""
        return Opened(*open_session(self.run, registry.load(self.backend, threads=self.threads), self.devices))


def _given(opened: Opened, paths: Sequence[Path], data: str | None, count: int) -> Given:
    """The images of some files, else validation images spread over the set."""
    if paths:
        pixels = np.stack([read_image(path, opened.recipe.image_size) for path in paths])
        source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
        return Given(pixels, None, [path.stem for path in paths], source)
    known = opened.data(data)
    indices = np.unique(np.linspace(0, len(known.validation) - 1, count).astype(np.int64))
    labels = known.validation.labels[indices]
    names = [name_of(opened.class_names, int(label)) for label in labels]
    source = f"{len(indices)} validation image{'s' if len(indices) > 1 else ''} of {known.name}"
    return Given(known.validation.read(indices), labels, names, source)


def _split(data: DataSet, name: str) -> Split:
    if name not in ("train", "validation"):
        raise ConfigurationError(f"--split takes train or validation, got '{name}'")
    return data.train if name == "train" else data.validation


@contextmanager
def _counting(screen: Console, what: str, total: int, unit: str = "images") -> Iterator[Callable[[int], None]]:
    """Show how far something has got: a bar on a terminal, else a line now and then."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        began = said = time.monotonic()
        first: int | None = None

        def done(count: int) -> None:
            nonlocal said, first
            progress.update(task, completed=count)
            first = count if first is None else first
            now = time.monotonic()
            if not screen.is_terminal and now - said > QUIET_SECONDS and count > first:
                said = now
                left = duration((now - began) * (total - count) / (count - first))
                screen.print(f"{what}: {count:,} of {total:,} {unit}, {left} left", highlight=False)

        yield done


def _save(screen: Console, figure: Any, path: Path, note: str = "") -> None:
    pictures.save(figure, path)
    screen.print(f"picture: {path}{note}", highlight=False, markup=False)


def kernels(paths: Sequence[Path], picture: Path) -> int:
    """Colour selectivity of the first layer's kernels by column, of one run or several."""
    screen = console()
    table = Table(box=None, highlight=False)
    for name in ("run", "column", "kernels", "mean", "median", "of all weights", "η²", "p"):
        table.add_column(name, justify="left" if name == "run" else "right")
    first = True
    for path in paths:
        opened = Asked(path).open()
        weights, columns = opened.session.weights()["conv1.weight"], opened.recipe.columns
        scores = colour_selectivity(weights)
        difference = column_difference(scores, columns) if columns > 1 else None
        for n, (part, block) in enumerate(zip(np.split(scores, columns), np.split(weights, columns), strict=True)):
            tested = (
                ("", "") if difference is None or n else (f"{difference.statistic:.3f}", f"{difference.p_value:.4g}")
            )
            numbers = (float(np.nanmean(part)), float(np.nanmedian(part)), colour_share(block))
            texts = [f"{number:.3f}" for number in numbers]
            table.add_row(str(path) if n == 0 else "", str(n + 1), str(len(part)), *texts, *tested)
        if first:
            figure, first = drawn.kernels(weights, scores, columns, difference), False
    screen.print(table)
    screen.print(
        "mean, median: of the kernels' colour selectivity, the share of a kernel's squared weights that remains when "
        "the mean over red, green and blue is taken away: 0 grey, 1 colour alone, 0.667 random weights on average. "
        "η²: share of the kernels' variance that lies between the columns; p: share of divisions of the same kernels "
        "into columns at random that differ as much (permutation test).",
        highlight=False,
    )
    _save(screen, figure, picture)
    return 0


def activations(
    asked: Asked,
    image: Path | None,
    layer: str,
    picture: Path,
) -> int:
    """A layer's maps or neurons for one image."""
    screen = console()
    opened = asked.open()
    opened.session.network.layer(layer)
    given = _given(opened, [image] if image else [], asked.data, 1)
    output = opened.session.activations(given.images, [layer])[layer][0]
    stage = next(s for s in opened.session.network.stages(opened.recipe.columns) if s.layer.name == layer)
    columns = stage.pieces
    strongest = output.reshape(len(output), -1).max(axis=1)
    units = np.argsort(-strongest, kind="stable")[:5]
    size = " × ".join(map(str, output.shape))
    screen.print(
        f"{layer} for {given.source}: {size}, {(output == 0).mean():.1%} of it zero, mean {output.mean():.4g}, from "
        f"{output.min():.4g} to {output.max():.4g}",
        highlight=False,
        markup=False,
    )
    said = ", ".join(f"{unit} ({strongest[unit]:.4g})" for unit in units)
    screen.print(f"strongest {'channels' if output.ndim == 3 else 'neurons'}: {said}", highlight=False)
    _save(screen, drawn.activations(opened.crop(given.images)[0], output, layer, columns), picture)
    return 0


def occlusion(
    asked: Asked,
    image: Path | None,
    label: str | None,
    size: int | None,
    stride: int | None,
    picture: Path,
) -> int:
    """How a class's probability falls where an image is covered."""
    screen = console()
    opened = asked.open()
    session = opened.session
    watched = opened.label(label)
    squares = sensitivity.occlusion_squares(session, size, stride)
    given = _given(opened, [image] if image else [], asked.data, 1)
    with _counting(screen, "covering", squares, "squares") as progress:
        found = sensitivity.occlusion(
            session,
            given.images[0],
            label=watched,
            size=size,
            stride=stride,
            batch_size=asked.batch_size,
            progress=progress,
        )
    name = name_of(opened.class_names, found.label)
    i, j = np.unravel_index(int(found.probabilities.argmin()), found.probabilities.shape)
    top, left = int(found.offsets[i]), int(found.offsets[j])
    changed = (found.given != found.label).mean()
    screen.print(
        f"{name}: {found.whole:.2%} for {given.source}; least {found.probabilities.min():.2%}, with rows {top} to "
        f"{top + found.size - 1} and columns {left} to {left + found.size - 1} of {opened.recipe.crop} covered; under "
        f"{changed:.1%} of {squares} squares of {found.size} × {found.size} another class is the most probable",
        highlight=False,
        markup=False,
    )
    _save(screen, drawn.occlusion(opened.crop(given.images)[0], found, opened.class_names), picture)
    return 0


def translation(
    asked: Asked,
    images: Sequence[Path],
    label: str | None,
    count: int,
    reach: float,
    steps: int,
    scale: float,
    picture: Path,
) -> int:
    """How a class's probability changes as images are moved about."""
    screen = console()
    opened = asked.open()
    watched = opened.label(label)
    given = _given(opened, images, asked.data, count)
    labels = given.labels if watched is None else np.full(len(given.images), watched, np.int64)
    with _counting(screen, "moving", len(given.images) * steps**2) as progress:
        found = sensitivity.translation(
            opened.session,
            given.images,
            labels,
            reach=reach,
            steps=steps,
            scale=scale,
            batch_size=asked.batch_size,
            progress=progress,
        )
    whose = "their own class" if given.labels is not None and watched is None else "the class most probable before"
    if watched is not None:
        whose = name_of(opened.class_names, watched)
    screen.print(
        f"{given.source}; watched: {whose}" + (f"; shrunk to {scale:g} of their side" if scale < 1 else ""),
        highlight=False,
        markup=False,
    )
    table = Table(box=None, highlight=False)
    for column in ("shift, pixels", "of the crop", "probability", "in the top 5", "± (95 %)"):
        table.add_column(column, justify="right")
    apart = np.maximum.outer(np.abs(found.shifts), np.abs(found.shifts))
    for shift in np.unique(np.abs(found.shifts)):
        ring = apart == shift
        inside = (found.ranks[:, ring] < 5).mean(axis=1)
        spread = 1.96 * inside.std(ddof=1) / np.sqrt(len(inside)) if len(inside) > 1 else np.nan
        table.add_row(
            str(shift),
            f"{shift / opened.recipe.crop:.0%}",
            f"{found.probabilities[:, ring].mean():.1%}",
            f"{inside.mean():.1%}",
            f"{spread:.1%}" if len(inside) > 1 else "",
        )
    screen.print(table)
    screen.print(
        "a row: all shifts whose larger part, down or sideways, is that many pixels; the interval is over the images",
        highlight=False,
    )
    ground = sensitivity.blank(opened.session)
    content = sensitivity.shrunk(given.images[0], scale)
    ends = (found.shifts[0], 0, found.shifts[-1])
    samples = [
        opened.crop(sensitivity.place(content, ground, int(down), int(right))) for down in ends for right in ends
    ]
    _save(screen, drawn.translation(samples, found, opened.class_names), picture)
    return 0


def excite(
    asked: Asked,
    layer: str,
    units: str | None,
    count: int,
    split: str,
    picture: Path,
) -> int:
    """The images that excite some units most."""
    screen = console()
    opened = asked.open()
    session = opened.session
    width = exciting.units_of(session, layer)
    columns = next(s.pieces for s in session.network.stages(opened.recipe.columns)
                   if s.layer.name == layer)  # fmt: skip
    chosen = _units(units, width, columns)
    known = opened.data(asked.data)
    part = _split(known, split)
    with _counting(screen, "looking", len(part)) as progress:
        found = exciting.excite(
            session, part, layer, chosen, count=count, batch_size=asked.batch_size, progress=progress
        )
    table = Table(box=None, highlight=False)
    for column in ("unit", "column", "activation", "classes of the images"):
        table.add_column(column, justify="right" if column != "classes of the images" else "left")
    for unit, images, values in zip(found.units, found.images, found.values, strict=True):
        times = Counter(name_of(opened.class_names, int(label)) for label in part.labels[images])
        names = ", ".join(f"{name} ×{n}" if n > 1 else name for name, n in times.most_common())
        table.add_row(str(unit), str(unit * columns // width + 1), f"{values[0]:.4g} … {values[-1]:.4g}", names)
    screen.print(table)
    crops = [list(opened.crop(part.read(images))) for images in found.images]
    field = exciting.receptive_field(session.network, layer)
    _save(screen, drawn.excitation(crops, found, field, columns, width), picture)
    return 0


def _units(text: str | None, width: int, columns: int) -> list[int]:
    """The numbers of units that are named, else some of each column."""
    if text is None:
        share = width // columns
        some = np.unique(np.linspace(0, share - 1, UNITS).astype(np.int64))
        return [int(column * share + unit) for column in range(columns) for unit in some]
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise ConfigurationError(f"--units takes numbers, such as 3,17; got '{text}'") from None


def neighbours(
    asked: Asked,
    images: Sequence[Path],
    count: int,
    index: Path | None,
    search: str,
    picture: Path,
) -> int:
    """The training images nearest to some images in the last hidden layer's features."""
    if search not in SEARCHES:
        raise ConfigurationError(f"--search takes {' or '.join(SEARCHES)}, got '{search}'.{nearest(search, SEARCHES)}")
    screen = console()
    opened = asked.open()
    session = opened.session
    given = _given(opened, images, asked.data, SHOWN)
    layer = near.feature_layer(session.network)
    known = opened.data(asked.data)
    folder = index or _home(asked.run) / f"features-{layer}"
    manifest = manifest_of(session, known.train, layer, _data_name(opened, asked.data), "train", opened.class_names)
    stopped = _write(screen, session, known.train, folder, manifest, asked.batch_size)
    if stopped:
        return stopped
    features = open_features(folder)
    wanted = session.activations(given.images, [layer])[layer]
    said = "exact search"
    if search == "faiss":
        found_index = near.FaissIndex.open(features)
        if found_index is None:
            with _counting(screen, "building the index", len(features.labels)) as progress:
                found_index = near.FaissIndex.build(features, progress)
        said = f"faiss, which found {found_index.recall:.1%} of the exact neighbours of 100 images when it was built"
        found = found_index.nearest(wanted, count)
    else:
        with _counting(screen, "searching", len(features.labels)) as progress:
            found = near.nearest(features.values, wanted, count, progress)
    labels = features.labels[found.images]
    table = Table(box=None, highlight=False)
    table.add_column("image")
    table.add_column("nearest training images: class (distance)")
    for n, name in enumerate(given.names):
        words = [f"{name_of(opened.class_names, int(k))} ({d:.3g})"
                 for k, d in zip(labels[n], found.distances[n], strict=True)]  # fmt: skip
        table.add_row(name, ", ".join(words))
    screen.print(table)
    size = math.prod(features.manifest.shape)
    screen.print(
        f"distances in the {size:,} features of {layer} to {len(features.labels):,} training images; {said}",
        highlight=False,
    )
    if given.labels is not None:
        same = float((labels == given.labels[:, None]).mean())
        share = float((features.labels[:, None] == given.labels).mean())
        screen.print(f"{same:.1%} of the neighbours have the image's own class; {share:.1%} of all do", highlight=False)
    close = np.stack([known.train.read(row) for row in found.images])
    stream = philox.Stream(0, philox.purpose("look/pixels"))
    others = known.train.read(np.sort(philox.permutation(stream, len(known.train))[:OTHERS]))
    ranks = near.pixel_ranks(given.images, close, others)
    screen.print(
        f"compared as pixels, {ranks.mean():.1%} of {len(others)} training images chosen at random are nearer than "
        "such a neighbour (0 % if neighbours were nearest in pixels, too; 50 % if they were as any image)",
        highlight=False,
    )
    few = slice(0, SHOWN)
    figure = drawn.neighbours(
        list(given.images[few]),
        given.names[few],
        [list(row) for row in close[few]],
        near.Neighbours(found.images[few], found.distances[few]),
        labels[few],
        opened.class_names,
    )
    _save(screen, figure, picture, f" (the first {SHOWN} images)" if len(given.images) > SHOWN else "")
    return 0


def features(
    asked: Asked,
    folder: Path,
    layer: str | None,
    split: str,
    form: str,
) -> int:
    """Write a layer's activations for a data set."""
    screen = console()
    opened = asked.open()
    name = layer or near.feature_layer(opened.session.network)
    opened.session.network.layer(name)
    known = opened.data(asked.data)
    part = _split(known, split)
    manifest = manifest_of(opened.session, part, name, _data_name(opened, asked.data), split, opened.class_names, form)
    stopped = _write(screen, opened.session, part, folder, manifest, asked.batch_size)
    if stopped:
        return stopped
    size = " × ".join(map(str, (manifest.images, *manifest.shape)))
    screen.print(f"{name} of {manifest.images:,} {split} images of {known.name}: {size} {manifest.dtype}",
                 highlight=False)  # fmt: skip
    reading = (
        f"numpy.load('{folder}/features.npy', mmap_mode='r')"
        if form == "npy"
        else f"pyarrow.parquet.read_table('{folder}')"
    )
    screen.print(f"read it with {reading}", highlight=False, markup=False)
    return 0


def _write(
    screen: Console, session: Session, split: Split, folder: Path, manifest: Manifest, batch_size: int
) -> int:  # fmt: skip
    """Write features, or what is missing of them; the exit code if it was stopped, else 0."""
    with StopRequest() as stop, _counting(screen, f"{manifest.layer} of the {manifest.split} set",
                                          manifest.images) as progress:  # fmt: skip
        made = write_features(
            session,
            split,
            folder,
            manifest,
            batch_size=batch_size,
            progress=progress,
            stop=lambda: stop.requested,
        )
    if made.done < made.images:
        screen.print(
            f"stopped by {stop.requested} after {made.done:,} of {made.images:,} images; the same command goes on",
            highlight=False,
        )
        return stop.exit_code
    return 0


def _data_name(opened: Opened, data: str | None) -> str:
    return str(opened.recipe.data) if data is None else data


def _home(path: Path) -> Path:
    """The run folder that a path is, or that its checkpoint lies in."""
    for folder in (path, path.parent.parent):
        if (folder / "recipe.toml").is_file():
            return folder
    raise CheckpointError(f"{path} lies in no run folder: say where the index goes with --index FOLDER")
