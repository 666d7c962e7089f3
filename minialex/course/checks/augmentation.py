"""Checks of notebook 07: crops, reflections, ten views."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from minialex.course.checks.feedback import NotYet, as_array, call, exercise, reference, same_array, same_number
from minialex.data import load, ten_crop_offsets, training_draws
from minialex.data.statistics import Statistics


def _cut(image: NDArray[np.uint8], views: list[tuple[int, int, int]], crop: int) -> NDArray[np.uint8]:
    """Views (top, left, flip) of one image, cut by the reference operation."""
    n = len(views)
    top, left, flip = (np.array(numbers) for numbers in zip(*views, strict=True))
    cut = reference(
        "augment", np.repeat(image[None], n, axis=0), np.zeros((3, crop, crop)), np.zeros((n, 3)),
        top.astype(np.int32), left.astype(np.int32), flip.astype(np.uint8), crop=crop, factor=1.0, mean_follows=False,
    )  # fmt: skip
    return np.asarray(cut).astype(np.uint8)


@exercise
def count_views(answer: Any) -> str:
    """A function (size, crop) -> how many different training images one image gives: crops at all places, reflected."""
    for size, crop in ((8, 6), (32, 28), (256, 224)):
        truth = _positions(size, crop, "inclusive") ** 2 * 2
        paper = _positions(size, crop, "exclusive") ** 2 * 2
        mistakes = [
            (paper, "so the paper counts (2,048 for 256 and 224), but from offset 0 to the last one it is one more "
             "in each direction."),
            (truth / 2, "each crop also comes reflected."),
            (_positions(size, crop, "inclusive") * 2, "crops move down *and* across."),
            (2 * truth, "reflected left to right only; upside down is not used."),
        ]  # fmt: skip
        same_number(call(answer, size, crop), truth, f"the number of views for {size} and {crop}", mistakes)
    return "2,178 for the paper's sizes; the paper leaves out one offset each way and says 2,048."


def _positions(size: int, crop: int, kind: str) -> int:
    """Offsets of a crop along one axis: so many that the library draws."""
    nothing = Statistics(np.zeros((3, size, size), np.float32), np.eye(3))
    draws = training_draws(
        20_000, seed=0, step=0, size=size, crop=crop, statistics=nothing, crop_positions=kind, colour=0
    )
    return int(draws.top.max()) + 1


@exercise
def reflect(answer: Any) -> str:
    """A function (images [N,3,H,W]) -> each of them reflected, left to right."""
    images = load("shapes", train_images=2, validation_images=1).train.read(np.arange(2))
    truth = np.stack([_cut(image, [(0, 0, 1)], images.shape[2])[0] for image in images])
    mistakes = [
        (images, "they are as they were."),
        (images[:, :, ::-1], "that is upside down: the last axis goes from left to right."),
        (images[:, ::-1], "that exchanges red and blue: the channels are axis 1."),
        (images[::-1], "that exchanges the images: the batch is axis 0."),
        (images[:, :, ::-1, ::-1], "that turns them around by half a turn: only the last axis should change."),
    ]
    same_array(call(answer, images), truth, "the reflected images", mistakes, axes=("n", "c", "i", "j"))
    return "the last axis, turned around."


@exercise
def ten_views(answer: Any) -> str:
    """A function (image [3,S,S], crop) -> the ten views of section 4.1 in any order, [10,3,crop,crop]."""
    image = load("shapes", train_images=1, validation_images=1).train.read(np.arange(1))[0]
    crop = 28
    truth = _cut(image, ten_crop_offsets(32, crop), crop)
    result = as_array(call(answer, image, crop), "the views")
    if result.shape != truth.shape:
        raise NotYet(f"the views have the shape {list(result.shape)}, it should be {list(truth.shape)}.")
    names = ["upper left", "upper right", "lower left", "lower right", "central"]
    missing = []
    for number, view in enumerate(truth):
        if not any(np.array_equal(view, yours) for yours in result):
            missing.append(names[number % 5] + (" (reflected)" if number >= 5 else ""))
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise NotYet(f"the {missing[0]} view is missing{more}.")
    return "four corners and the centre, each also reflected."
