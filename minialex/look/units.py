"""What a unit responds to: its receptive field, and the images that excite it most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.data import Split, batches
from minialex.engine.session import Session
from minialex.errors import ConfigurationError, DataError
from minialex.network.layers.layer import Shape
from minialex.network.network import Network


@dataclass(frozen=True)
class ReceptiveField:
    """The rows, or columns, of the network's input that a position in a layer's maps depends on.

    Attributes:
        size: number of rows
        stride: distance between the first rows of adjacent positions
        start: first row of position 0; negative if it begins outside the image
    """

    size: int
    stride: int
    start: int

    def of(self, place: int, length: int) -> tuple[int, int]:
        """The part of an input of `length` rows that a position sees: its first row, and one past its last."""
        begin = self.start + place * self.stride
        return max(begin, 0), min(begin + self.size, length)


def receptive_field(network: Network, layer: str) -> tuple[ReceptiveField, ReceptiveField] | None:
    """The receptive fields of a layer's positions, along rows and along columns; None if each sees the whole image.

    Raises:
        ConfigurationError: If the network has no such layer.
    """
    network.layer(layer)
    fields = []
    for axis in (0, 1):
        size, stride, start = 1, 1, 0
        for each in network.layers:
            window = each.window(axis)
            if window is None:
                return None
            reads, apart, before = window
            size += (reads - 1) * stride
            start -= before * stride
            stride *= apart
            if each.name == layer:
                break
        fields.append(ReceptiveField(size, stride, start))
    return fields[0], fields[1]


@dataclass(frozen=True)
class Excitation:
    """The images that excite a layer's units most. A unit of a convolution is a channel, at its best position.

    Attributes:
        layer: the layer's name
        units: numbers of the units U in the whole layer, those of column 0 first
        images: int64 [U,n], indices into the split, most exciting first
        values: float [U,n], the activations for these
        rows, columns: int64 [U,n], the position in the layer's map; 0 for fully connected layers
    """

    layer: str
    units: tuple[int, ...]
    images: NDArray[np.int64]
    values: NDArray[np.floating[Any]]
    rows: NDArray[np.int64]
    columns: NDArray[np.int64]


def excite(
    session: Session,
    split: Split,
    layer: str,
    units: Sequence[int],
    *,
    count: int = 9,
    batch_size: int = 100,
    progress: Callable[[int], None] = lambda done: None,
) -> Excitation:
    """Find the images whose centre crops excite units most, in one pass over a split.

    Args:
        units: numbers of channels, or of neurons of a fully connected layer
        count: images per unit; of equal activations, the first image and the first position in row order count
        progress: called with the number of images done

    Raises:
        ConfigurationError: If there is no such layer or unit.
        DataError: If the split is empty, or an image is unreadable.
    """
    width = units_of(session, layer)
    for unit in units:
        if not 0 <= unit < width:
            raise ConfigurationError(f"layer '{layer}' has units 0 … {width - 1}, not {unit}")
    if not len(units) or count < 1:
        raise ConfigurationError("give at least one unit and one image")
    if not len(split):
        raise DataError("the data set has no images")
    chosen = np.asarray(units, np.int64)
    values = np.empty((len(chosen), 0))
    where = np.empty((3, len(chosen), 0), np.int64)  # image, row, column
    done = 0
    with closing(batches(split, np.arange(len(split)), batch_size, drop_last=False)) as reading:
        for indices, images, _ in reading:
            activations = session.activations(images, [layer])[layer][:, chosen]
            maps = activations.reshape(len(images), len(chosen), -1)
            places = maps.argmax(axis=2)  # [N,U]
            best = np.take_along_axis(maps, places[..., None], axis=2)[..., 0]
            across = activations.shape[3] if activations.ndim == 4 else 1
            here = np.stack([np.broadcast_to(indices[:, None], places.shape), *np.divmod(places, across)])
            values = np.concatenate([values, best.T], axis=1)
            where = np.concatenate([where, here.transpose(0, 2, 1)], axis=2)
            keep = np.argsort(-values, axis=1, kind="stable")[:, :count]
            values = np.take_along_axis(values, keep, axis=1)
            where = np.take_along_axis(where, keep[None], axis=2)
            done += len(images)
            progress(done)
    return Excitation(layer, tuple(int(unit) for unit in chosen), where[0], values, where[1], where[2])


def output_shape(session: Session, layer: str) -> Shape:
    """The shape of a layer's output for one image, over all columns: (C, H, W) or (D,).

    Raises:
        ConfigurationError: If the network has no such layer.
    """
    session.network.layer(layer)
    stages = session.network.stages(len(session.plan.placement))
    (stage,) = (stage for stage in stages if stage.layer.name == layer)
    return (stage.output[0] * stage.pieces, *stage.output[1:])


def units_of(session: Session, layer: str) -> int:
    """The number of channels, or neurons, of a layer over all columns; raises the same errors as `output_shape`."""
    return output_shape(session, layer)[0]
