"""The network to look into, and the images to show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minialex.cli.options import Machine, check_writable
from minialex.data import DataSet, Split
from minialex.data.draws import centre_crop_offset
from minialex.data.images import read_image
from minialex.engine.opening import load_data, open_session
from minialex.engine.session import Session
from minialex.errors import ConfigurationError, nearest
from minialex.figures import pictures
from minialex.look import features
from minialex.ranks.group import ALONE, Group
from minialex.recipe.fields import Recipe
from minialex.screen.formats import plural
from minialex.screen.terminal import counting
from minialex.training.signals import StopRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console


@dataclass(frozen=True)
class Images:
    """Images to look at.

    Attributes:
        pixels: uint8 [N,3,S,S]
        labels: int64 [N], None if they are not known
        names: a name for each image
        source: where the images come from, in words
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: list[str]
    source: str


@dataclass(frozen=True)
class Subject:
    """A trained network to look into, the names of its classes, and a data set to use instead of its own, if any."""

    session: Session
    recipe: Recipe
    class_names: tuple[str, ...]
    data_name: str | None

    def data(self) -> DataSet:
        """The run's data set, or the one given instead, which must have the same classes."""
        data = load_data(self.recipe if self.data_name is None else self.recipe.replace(data=self.data_name))
        if data.class_names != self.class_names:
            raise ConfigurationError(f"'{data.name}' has different classes from those the run was trained on")
        return data

    def images(self, paths: Sequence[Path], count: int) -> Images:
        """The images in `paths`, or else `count` validation images spread evenly over the set."""
        if paths:
            pixels = np.stack([read_image(path, self.recipe.image_size, self.recipe.resize) for path in paths])
            source = str(paths[0]) if len(paths) == 1 else f"{len(paths)} files"
            return Images(pixels, None, [path.stem for path in paths], source)
        data = self.data()
        indices = np.unique(np.linspace(0, len(data.validation) - 1, count).astype(np.int64))
        labels = data.validation.labels[indices]
        source = f"{plural(len(indices), 'validation image')} of {data.name}"
        return Images(data.validation.read(indices), labels, [self.name(label) for label in labels], source)

    def crop(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of images [...,S,S] that the network sees."""
        first = centre_crop_offset(self.recipe.image_size, self.recipe.crop)
        return images[..., first : first + self.recipe.crop, first : first + self.recipe.crop]

    def name(self, label: int) -> str:
        """The name of a class."""
        return pictures.name_of(self.class_names, int(label))

    def label(self, text: str | None) -> int | None:
        """The number of a class, given as a name or a number."""
        if text is None:
            return None
        if text in self.class_names:
            return self.class_names.index(text)
        if text.isdigit() and int(text) < len(self.class_names):
            return int(text)
        raise ConfigurationError(f"the run has no class '{text}'.{nearest(text, self.class_names)}")

    def columns(self, layer: str) -> int:
        """The number of columns into which a layer's channels or neurons are divided."""
        stages = self.session.network.stages(self.recipe.columns)
        return next(stage.pieces for stage in stages if stage.layer.name == layer)


def open_run(run: Path, machine: Machine, data: str | None = None, group: Group = ALONE) -> Subject:
    """A run's network with its weights, on the requested machine."""
    return Subject(*open_session(run, machine.load(group=group), machine.devices, group), data)


def split_of(data: DataSet, name: str) -> Split:
    """A part of a data set, by name."""
    if name not in ("train", "validation"):
        raise ConfigurationError(f"--split takes train or validation, got '{name}'")
    return data.train if name == "train" else data.validation


def save(screen: Console, figure: Figure, path: Path, note: str = "") -> None:
    """Write a picture, and print its path."""
    check_writable(path, "--picture", ".png")  # never overwrites another file, say a photograph
    pictures.save(figure, path)
    screen.print(f"picture: {path}{note}")


def write_features(
    screen: Console, subject: Subject, images: Split, split: str, layer: str, folder: Path, form: str, batch_size: int,
    group: Group = ALONE,
) -> tuple[features.Manifest, int]:  # fmt: skip
    """Write the features still missing; return their manifest, and 0 or the exit code of the signal that stopped it."""
    name = str(subject.recipe.data) if subject.data_name is None else subject.data_name
    manifest = features.manifest_of(subject.session, images, layer, name, split, subject.class_names, form)
    what = f"{layer} of the {split} set"
    with StopRequest(*["SIGUSR1"] * (group.size > 1)) as stop, counting(screen, what, manifest.images) as progress:
        state = features.write_features(
            subject.session, images, folder, manifest, batch_size=batch_size, progress=progress,
            stop=lambda: stop.among(group), group=group,
        )  # fmt: skip
    if state.done == state.images:
        return manifest, 0
    screen.print(
        f"stopped by {stop.requested} after {state.done:,} of {state.images:,} images; run the same command to continue"
    )
    return manifest, stop.exit_code
