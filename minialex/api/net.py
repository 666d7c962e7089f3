"""A trained network: it gives the classes of images, their features, and its own errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from minialex.backend import registry
from minialex.backend.protocol import Backend
from minialex.data import DataSet, absolute
from minialex.data.images import from_array, from_pillow, read_image
from minialex.engine.opening import load_data, precision_of, session_of, validation_for
from minialex.errors import ConfigurationError
from minialex.evaluation.errors import Evaluation, evaluate
from minialex.look.neighbours import feature_layer
from minialex.ranks.group import ALONE, Group
from minialex.runs import weights_file
from minialex.runs.weights_file import Weights
from minialex.screen.formats import plural

AT_ONCE = 64  # images computed at once

Image: TypeAlias = Any
"""A path, a Pillow image, or an array: uint8 [H,W], [H,W,3] of any size, or [3,S,S]."""
Ranking: TypeAlias = list[tuple[str, float]]


def load(
    path: str | os.PathLike[str],
    *,
    backend: str | Backend | None = None,
    devices: str | None = None,
    threads: int | None = None,
    precision: str | None = None,
) -> TrainedNet:
    """Load a trained network from a run folder (its best weights), a checkpoint, or a weights file.

    Args:
        path: path of the run, checkpoint or file
        backend: name of an installed backend; None: the fastest one on this machine
        devices: one for all columns, or one per column: ``"0,1"``
        threads: number of threads that the backend may use, if it has threads
        precision: precision of its products, if the backend has a choice; None: that of the training

    Raises:
        CheckpointError: If there is no network there, or it is damaged.
        ConfigurationError, BackendUnavailable: If it cannot be computed on that backend or device.

    Examples:
        >>> net = minialex.load("runs/shapes")
        >>> for name, probability in net.predict("photo.png", top=2):
        ...     print(f"{name}: {probability:.0%}")
        square: 10%
        frame: 10%
        >>> net.features("photo.png", layer="conv5").shape
        (1, 4, 7, 7)
    """
    weights = weights_file.find(Path(path))
    if backend is None or isinstance(backend, str):
        backend = registry.load(backend, threads=threads, precision=precision_of(weights.recipe, precision))
    return TrainedNet(weights, backend, devices, os.fspath(path))


class TrainedNet:
    """A network with trained weights; `load` makes it.

    Attributes:
        weights: the arrays, the recipe and what is known about their origin
        session: the network on its devices
        class_names: the name of each class that it can answer with
    """

    def __init__(
        self, weights: Weights, backend: Backend, devices: str | None = None, name: str = "it", group: Group = ALONE
    ) -> None:
        self.weights = weights
        self.session = session_of(weights, backend, devices, group)
        self.class_names = weights.titles
        self.name = name

    def __repr__(self) -> str:
        recipe = self.weights.recipe
        classes = plural(len(self.class_names), "class")
        return f"<{recipe.model} of {self.name}: {classes}, {self.session.backend.name} backend>"

    @overload
    def predict(self, images: str | os.PathLike[str], *, top: int = 5, views: int = 1) -> Ranking: ...
    @overload
    def predict(self, images: list[Image], *, top: int = 5, views: int = 1) -> list[Ranking]: ...
    @overload
    def predict(self, images: Image, *, top: int = 5, views: int = 1) -> Any: ...
    def predict(self, images: Image, *, top: int = 5, views: int = 1) -> Any:
        """The most probable classes of an image or of several.

        Args:
            images: a path, a Pillow image, an array uint8 [H,W,3], [H,W] or [3,S,S]; or a list or batch [N,…] of them
            top: number of classes, 1 or more
            views: 1, the centre, or 10: also the corners, and all of them reflected (section 4.1)

        Returns:
            ``[("cat", 0.93), …]``, the most probable first; for several images a list of such lists.

        Raises:
            DataError: If an image cannot be read.
            ConfigurationError: If `images` is none of these or empty, or `top` or `views` cannot be used.
        """
        if top < 1:
            raise ConfigurationError(f"top = {top}: the number of classes to return; use 1 or more")
        answers = [self.ranking(row, top) for row in self.probabilities(images, views=views)]
        return answers if _are_several(images) else answers[0]

    def probabilities(self, images: Image, *, views: int = 1) -> NDArray[np.floating[Any]]:
        """The probability of every class, [N,K] with N = 1 for a single image; arguments as for `predict`."""
        check_views(views)
        parts = [self.session.probabilities(part, views=views)[0] for part in self._parts(images)]
        return np.concatenate(parts)[:, : len(self.class_names)]

    def ranking(self, probs: NDArray[np.floating[Any]], top: int = 5) -> Ranking:
        """The most probable classes with their probabilities, of one image's probabilities [K]."""
        return [(self.class_names[k], float(probs[k])) for k in np.argsort(-probs, kind="stable")[:top]]

    def features(self, images: Image, layer: str | None = None) -> NDArray[np.floating[Any]]:
        """A layer's activations for the centre crops of images.

        Args:
            images: as for `predict`
            layer: the layer's name, ``"conv5"``; None: the last hidden layer

        Returns:
            [N,C,H,W] or [N,D], with N = 1 for a single image.

        Raises:
            ConfigurationError: If the network has no such layer.
        """
        name = layer or feature_layer(self.session.network)
        return np.concatenate([self.session.activations(part, [name])[name] for part in self._parts(images)])

    def pixels(self, images: Image) -> NDArray[np.uint8]:
        """Images as the network takes them: uint8 [N,3,S,S], scaled and cropped to a square if necessary."""
        recipe, several = self.weights.recipe, _are_several(images)
        if several and not len(images):
            raise ConfigurationError("no images: an empty list was given")
        return np.stack(
            [_pixels(image, recipe.image_size, recipe.resize) for image in (images if several else [images])]
        )

    def evaluate(self, *, views: int = 1, data: str | DataSet | None = None, batch_size: int = 100) -> Evaluation:
        """Errors on a validation set; see `evaluate_together`.

        Examples:
            >>> minialex.load("runs/shapes").evaluate(views=10).error(top=1) <= 1
            True
        """
        return evaluate_together([self], views=views, data=data, batch_size=batch_size)

    def _parts(self, images: Image) -> Iterator[NDArray[np.uint8]]:
        pixels = self.pixels(images)
        return (pixels[first : first + AT_ONCE] for first in range(0, len(pixels), AT_ONCE))


def evaluate_together(
    nets: Sequence[TrainedNet],
    *,
    views: int = 1,
    data: str | DataSet | None = None,
    batch_size: int = 100,
    progress: Callable[[int, int], None] = lambda done, images: None,
    group: Group = ALONE,
) -> Evaluation:
    """Errors of one network, or of several whose probabilities are averaged, on a validation set.

    Args:
        nets: networks with the same classes and image size
        views: 1 or 10, see `TrainedNet.predict`
        data: a data set to use instead of the first network's own; classes are matched by name. Of a folder without a
            validation part, all images are used.
        batch_size: images computed at once
        progress: called with the number of images done and the number of all images
        group: the ranks that share the images, which all call this

    Raises:
        ConfigurationError: If the networks differ in classes or image size, or the data has a class that they lack.
        DataError: If the images cannot be read.
    """
    check_views(views)
    if batch_size < 1:
        raise ConfigurationError(f"batch_size = {batch_size}; use 1 or more")
    first = nets[0]
    for net in nets:
        if net.weights.labels != first.weights.labels:
            raise ConfigurationError(
                f"{net.name} has other classes than {first.name}: runs that are averaged must have the same classes"
            )
    sizes = sorted({net.weights.recipe.image_size for net in nets})
    if len(sizes) > 1:
        raise ConfigurationError(f"runs that are averaged must have the same image_size, got {sizes}")
    _, split = validation_for(first.weights, data_for(first, data), first.name)
    return evaluate(
        [net.session for net in nets],
        split,
        views=views,
        batch_size=batch_size,
        progress=lambda done: progress(done, len(split)),
        group=group,
    )


def data_for(net: TrainedNet, data: str | DataSet | None, part: str | None = None) -> DataSet:
    """The data set to use: a network's own, one by name, or one that is already loaded.

    Args:
        part: the part to use, see `minialex.data.load`; None: the validation images of the network's own data; of a
            folder elsewhere its validation part if it has one, otherwise all images
    """
    if isinstance(data, DataSet):
        return data
    recipe = net.weights.recipe
    if data is None or absolute(data) == recipe.data:
        return load_data(recipe, part or "")
    return load_data(recipe.replace(data=data, train_images=0, validation_images=0), part or "own")


def check_views(views: int) -> None:
    """Refuse any number of views other than 1 and 10."""
    if views not in (1, 10):
        raise ConfigurationError(f"views = {views}; use 1 or 10")


def _are_several(images: Image) -> bool:
    return isinstance(images, list | tuple) or getattr(images, "ndim", 0) == 4


def _pixels(image: Image, size: int, resize: str) -> NDArray[np.uint8]:
    if isinstance(image, str | os.PathLike):
        return read_image(image, size, resize)
    if hasattr(image, "getexif"):
        return from_pillow(image, size, resize)
    return from_array(np.asarray(image), size, resize)
