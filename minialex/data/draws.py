"""Draws the order in which an epoch visits the images, and what the network sees of each.

Those are random crops, reflections and colours in training, and ten crops in testing. This module only draws the
numbers; `Backend.augment` cuts the pixels. Every draw is a pure function of (seed, purpose, step, position in the
batch), so neither splitting a batch nor resuming a run changes it. Source: section 4.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex import philox
from minialex.data.statistics import Statistics
from minialex.errors import ConfigurationError, nearest

CROP_POSITIONS = ("inclusive", "exclusive")
COLOUR_SCALES = ("stdev", "eigenvalue")
SHUFFLES = ("each-epoch", "once")


def epoch_order(n: int, *, seed: int, epoch: int, shuffle: str = "each-epoch") -> NDArray[np.int64]:
    """The order of n images in an epoch, int64 [n]: a permutation that depends only on (seed, epoch).

    Args:
        shuffle: ``"each-epoch"``, a new order every time, or ``"once"``, always the order of epoch 0, as in the 2012
            program, whose batches were shuffled when they were made

    Raises:
        ConfigurationError: an unknown `shuffle`
    """
    _check_word("shuffle", shuffle, SHUFFLES)
    step = epoch if shuffle == "each-epoch" else 0
    return philox.permutation(philox.Stream(seed, philox.purpose("order"), step=step), n)


def centre_crop_offset(size: int, crop: int) -> int:
    """Offset of the central crop from the top or the left: half of the remaining pixels, rounded down."""
    _check_crop(size, crop)
    return (size - crop) // 2


def ten_crop_offsets(size: int, crop: int) -> list[tuple[int, int, int]]:
    """The ten test views as (top, left, flip): four corners, the centre, then the same reflected.

    Raises:
        ConfigurationError: an empty crop, or one larger than the image
    """
    centre = centre_crop_offset(size, crop)
    last = size - crop
    corners = [(0, 0), (0, last), (last, 0), (last, last), (centre, centre)]
    return [(top, left, flip) for flip in (0, 1) for top, left in corners]


@dataclass(frozen=True)
class Draws:
    """How each of N images is augmented: arguments of `Backend.augment`.

    Attributes:
        top, left: offsets of the crop, int32 [N]
        flip: 1 where the crop is reflected, uint8 [N]
        shift: added to every pixel's red, green and blue, float32 [N, 3], on the scale 0 to 255
    """

    top: NDArray[np.int32]
    left: NDArray[np.int32]
    flip: NDArray[np.uint8]
    shift: NDArray[np.float32]


def training_draws(count: int, *, step: int, **options: Any) -> Draws:
    """Draw random crops, reflections and colour shifts for some images of a batch.

    Args:
        count: number of images N in this piece of the batch
        step: the training step
        options: see `draws_ahead`

    Raises:
        ConfigurationError: an invalid crop, chunk, coefficient or option
    """
    return draws_ahead(count, steps=range(step, step + 1), **options)[0]


def draws_ahead(
    count: int,
    *,
    seed: int,
    steps: range,
    size: int,
    crop: int,
    statistics: Statistics,
    first_sample: int = 0,
    crop_positions: str = "inclusive",
    crop_chunk: int = 1,
    colour: float = 0.1,
    colour_scale: str = "stdev",
) -> list[Draws]:
    """What `training_draws` draws for each of several steps, in one go: that takes NumPy hardly longer than one step's.

    Args:
        count: number of images N in this piece of the batch
        seed, steps: the run's seed, and the training steps
        size, crop: height and width of the images and of the crops
        statistics: statistics of the training set, for the colour shift
        first_sample: position of the piece's first image in the whole batch
        crop_positions: whether offsets up to size - crop are ``"inclusive"`` (33 each way for 224 of 256, as in the
            2012 program) or ``"exclusive"`` (32, the paper's factor of 2048)
        crop_chunk: this many consecutive images of the batch share a crop and a reflection; 32 in the 2012 program
        colour: standard deviation of the draws α along the principal components p (one per image and component);
            0 means no shift
        colour_scale: the shift is the sum of p α √λ, ``"stdev"``, as in the 2012 program, or of p α λ,
            ``"eigenvalue"``, as the paper prints it. λ is then for colours from 0 to 1, since on the scale 0 to 255
            such a shift would drown the image

    Raises:
        ConfigurationError: an invalid crop, chunk, coefficient or option
    """
    _check_crop(size, crop)
    _check_word("crop_positions", crop_positions, CROP_POSITIONS)
    _check_word("colour_scale", colour_scale, COLOUR_SCALES)
    positions = size - crop + (crop_positions == "inclusive")
    if positions < 1:
        raise ConfigurationError(f"crop = {crop} of {size} leaves no position when crop_positions = 'exclusive'.")
    if crop_chunk < 1:
        raise ConfigurationError(f"crop_chunk = {crop_chunk}; use 1 (independent crops) or more.")
    if not 0 <= colour < np.inf:
        raise ConfigurationError(f"colour = {colour}; use 0 (none) or a positive number such as 0.1.")

    samples = first_sample + np.arange(count, dtype=np.int64)
    chunks = samples // crop_chunk
    purposes = ("crop", chunks), ("flip", chunks), ("colour", samples)
    streams = [philox.Stream(seed, philox.purpose(name), step=step) for name, _ in purposes for step in steps]
    words = philox.together(streams, [indices for _, indices in purposes for _ in steps])
    crops, flips, colours = words.reshape(3, len(steps) * count, 4)
    offsets = philox.to_below(crops[:, :2], (positions, positions)).astype(np.int32)
    flip = philox.to_below(flips[:, :1], (2,))[:, 0].astype(np.uint8)
    shift = np.zeros((len(offsets), 3), np.float32)
    if colour:
        variances = statistics.eigenvalues
        scale = np.sqrt(variances) if colour_scale == "stdev" else variances / 255
        alpha = colour * philox.to_normal(colours)[:, :3]
        # Not a matrix product, which may sum a piece of a batch in a different order than the whole.
        parts = statistics.eigenvectors * (alpha * scale)[:, None, :]
        shift = (parts[..., 0] + parts[..., 1] + parts[..., 2]).astype(np.float32)
    top, left = np.ascontiguousarray(offsets.T)
    each = [slice(number * count, (number + 1) * count) for number in range(len(steps))]
    return [Draws(top[part], left[part], flip[part], shift[part]) for part in each]


def _check_crop(size: int, crop: int) -> None:
    if not 1 <= crop <= size:
        raise ConfigurationError(f"crop = {crop} does not fit into images of {size} x {size}; use 1 to {size}.")


def _check_word(field: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise ConfigurationError(f"{field} = '{word}' is unknown; use {' or '.join(known)}.{nearest(word, known)}")
